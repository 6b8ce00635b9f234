"""The samples of a batch among the arguments of a denoiser, and among what it returns."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

SHARED = frozenset({
    "img_ids", "txt_ids", "image_rotary_emb", "padding_mask", "visual_rope_pos", "text_rope_pos",
})  # fmt: skip
"""Arguments that all samples have in common; their first dimension may be as long as the batch by chance."""


@dataclass(frozen=True)
class Given:
    """What one call is given, by the names of its arguments. `size` is the number of samples, 0 where none is seen."""

    signature: inspect.Signature
    values: dict[str, Any]

    @classmethod
    def of(cls, forward: Callable[..., Any], args: Any, kwargs: Any) -> "Given":
        """The arguments of a call of `forward`, in the order in which it names them."""
        signature = inspect.signature(forward)
        return cls(signature, dict(signature.bind(*args, **kwargs).arguments))

    @property
    def first(self) -> Any:
        """The first argument: what is denoised."""
        return next(iter(self.values.values()), None)

    @property
    def size(self) -> int:
        """As many as what is denoised has: a tensor in its first dimension, a list one by one."""
        first = self.first
        if is_tensor(first):
            return len(first) if first.dim() else 0
        return len(first) if isinstance(first, list) else 0

    def samples(self, begin: int, end: int) -> "Given":
        """The same call for the samples from `begin` to `end`, in views."""
        apart = isinstance(self.first, list)
        cut = {
            name: value if name in SHARED else samples(value, self.size, begin, end, apart=apart)
            for name, value in self.values.items()
        }
        return replace(self, values=cut)

    def passed_to(self, forward: Callable[..., Any]) -> Any:
        """What `forward` makes of them."""
        bound = inspect.BoundArguments(self.signature, self.values)  # type: ignore[arg-type]
        return forward(*bound.args, **bound.kwargs)


def samples(value: Any, size: int, begin: int, end: int, *, apart: bool) -> Any:
    """Of `value`, which holds `size` samples wherever it holds any, those from `begin` to `end`.

    A list is one of samples where it is as long and, unless samples come `apart`, holds no tensor of all of them.
    """
    if is_tensor(value):
        return value[begin:end] if value.dim() and len(value) == size else value
    if isinstance(value, list) and len(value) == size and (apart or not any(_whole(v, size) for v in value)):
        return value[begin:end]
    if isinstance(value, list | tuple):
        return type(value)(samples(v, size, begin, end, apart=apart) for v in value)
    if isinstance(value, dict):
        return _like(value, {k: samples(v, size, begin, end, apart=apart) for k, v in value.items()})
    return value


def joined(results: Sequence[Any]) -> Any:
    """Results of one shape for some samples each, as one for all of them."""
    first = results[0]
    if is_tensor(first):
        import torch

        return torch.cat(list(results)) if first.dim() else first
    if isinstance(first, list):
        return [sample for result in results for sample in result]
    if isinstance(first, tuple):
        return tuple(map(joined, zip(*results, strict=True)))
    if isinstance(first, dict):
        return _like(first, {key: joined([result[key] for result in results]) for key in first})
    return first


def tensors(value: Any) -> Iterator[Any]:
    """Every tensor in `value`."""
    if is_tensor(value):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from tensors(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors(entry)


def is_tensor(value: Any) -> bool:
    """Whether `value` is one."""
    import torch

    return isinstance(value, torch.Tensor)


def _whole(value: Any, size: int) -> bool:
    return is_tensor(value) and value.dim() > 0 and len(value) == size


def _like(table: dict[Any, Any], values: dict[Any, Any]) -> Any:
    """`values` in a dict as `table` is one: diffusers returns some with a class of their own."""
    return values if type(table) is dict else type(table)(**values)
