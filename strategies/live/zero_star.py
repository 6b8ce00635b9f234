"""CFG-Zero*: what guidance subtracts is scaled to what it has in common with the other pass; the first steps stand.

Source: Fan et al., CFG-Zero*, arXiv 2503.18886, equation for s* and section 4.2.
"""

from collections.abc import Callable
from typing import Any

from .batches import Given, changed, is_tensor, joined, samples
from .front_door import Forward
from .kept import alike

UNCONDITIONAL_FIRST, CONDITIONAL_FIRST, TWO_CALLS = "unconditional first", "conditional first", "two calls"
"""In which order a pipeline has its passes in one batch, or that it makes two calls, the conditional one first."""
PACKED = 3
"""Dimensions of latents whose patches are tokens already: as many channels come out as go in."""
SMALLEST = 1e-8
"""Added to a squared norm, so that nothing is divided by zero."""


def alpha(conditional: Any, unconditional: Any) -> Any:
    """<conditional, unconditional> / ||unconditional||² of each sample, in float32, to multiply samples by."""
    one, other = (tensor.flatten(1).float() for tensor in (conditional, unconditional))
    scale = (one * other).sum(1) / (other.square().sum(1) + SMALLEST)
    return scale.view(-1, *(1,) * (conditional.dim() - 1))


def scaled(conditional: Any, unconditional: Any) -> Any:
    """What the denoiser returned for the unconditional pass, each tensor times its alpha; lists hold samples."""
    if is_tensor(unconditional):
        return unconditional * alpha(conditional, unconditional).to(unconditional.dtype)
    if isinstance(unconditional, list):
        return [scaled(c[None], u[None])[0] for c, u in zip(conditional, unconditional, strict=True)]
    if isinstance(unconditional, tuple):
        return tuple(map(scaled, conditional, unconditional))
    if isinstance(unconditional, dict):
        pairs = {key: scaled(conditional[key], value) for key, value in unconditional.items()}
        return type(unconditional)(**pairs)
    return unconditional


class ZeroStar:
    """The calls of one `part`, whose own forward is `forward`; in the first `zeros` steps, as `step` counts, none."""

    def __init__(self, part: Any, forward: Forward, order: str, zeros: int, step: Callable[[], int]) -> None:
        """No call was made."""
        self.part, self.forward, self.order, self.zeros, self.step = part, forward, order, zeros, step
        self.before: tuple[Any, Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call: zeros, or what the forward returns with the unconditional pass scaled."""
        given = Given.of(self.forward, args, kwargs)
        if self.step() < self.zeros:
            return nothing(self.part, given)
        result = self.forward(*args, **kwargs)
        return self._second(given, result) if self.order == TWO_CALLS else self._halves(given, result)

    def _second(self, given: Given, result: Any) -> Any:
        """A call with the latents of the one before is the unconditional pass."""
        before, self.before = self.before, None
        if before and alike(before[0], given.first):
            return scaled(before[1], result)
        self.before = given.first, result
        return result

    def _halves(self, given: Given, result: Any) -> Any:
        """A batch of which both halves are the same latents is both passes; others are several pictures."""
        half = given.size // 2
        latents = [samples(given.first, given.size, begin, begin + half, apart=given.apart) for begin in (0, half)]
        if given.size % 2 or not half or not alike(*latents):
            return result
        return both_scaled(given, result, first=self.order == UNCONDITIONAL_FIRST)


def both_scaled(given: Given, result: Any, *, first: bool) -> Any:
    """The result of both passes, of which the unconditional one is the `first` half or the second."""
    half = given.size // 2
    one, other = (samples(result, given.size, begin, begin + half, apart=given.apart) for begin in (0, half))
    return joined([scaled(other, one), other] if first else [one, scaled(one, other)])


def nothing(part: Any, given: Given) -> Any:
    """Zeros of the shape of what `part` would return, in a tuple, or as diffusers' output where that is asked for."""
    config = part.config
    there, made = config.get("in_channels"), config.get("out_channels")

    def zeros(latents: Any) -> Any:
        if latents.dim() > PACKED and made and latents.shape[1] == there:
            return latents.new_zeros((len(latents), made, *latents.shape[2:]))
        return latents.new_zeros(latents.shape)

    result = changed(given.first, zeros)
    if given.values.get("return_dict", True):
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=result)
    return (result,)
