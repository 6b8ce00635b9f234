"""Forwards that keep only what they were given, and are made again when their gradients are computed."""

from collections.abc import Callable
from typing import Any

from memplan.errors import BadInput, Unsupported
from memplan.faces.sampling.reach import tensors
from memplan.strategy import Undo


class Recompute:
    """Makes forwards again while it is `open`, which it is until somebody closes it.

    Later the modules may have other modes and hooks than they had, and what they were given may have been written to:
    the second forward would be of another function. Both raise then, instead of giving wrong gradients.
    """

    def __init__(self) -> None:
        """It is open."""
        self.open = True

    def __call__(self, function: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """What `function` returns; random numbers are the same the second time."""
        from torch.utils.checkpoint import checkpoint

        seen, first = _versions((args, given)), True

        def run(args: tuple[Any, ...], given: dict[str, Any]) -> Any:
            nonlocal first
            if not first:
                self._check(seen, (args, given))
            first = False
            return function(*args, **given)

        return checkpoint(run, args, given, use_reentrant=False)

    def close(self) -> None:
        """Nothing may be made again from now on."""
        self.open = False

    def _check(self, seen: list[int], given: Any) -> None:
        if not self.open:
            raise BadInput("what is checkpointed is computed again: call backward() inside memplan.differentiable()")
        if _versions(given) != seen:
            written = "what was given to what is checkpointed has been written to since"
            raise Unsupported(f"{written}, so it cannot be computed again: leave checkpoint out")


def _versions(given: Any) -> list[int]:
    return [tensor._version for tensor in tensors(given)]


def in_blocks(name: str, part: Any, recompute: Recompute) -> Undo:
    """Has each block of `part` made again, as the technique does that checkpoints them; the value undoes it.

    Raises Unsupported for a model without blocks, and for one that checkpoints already.
    """
    from memplan.strategies import DifferentiableSampling

    try:
        return DifferentiableSampling.in_blocks(part, lambda call: lambda *args, **given: recompute(call, args, given))
    except BadInput as error:
        raise Unsupported(f'{name} cannot be checkpointed in blocks ({error}): give checkpoint="step"') from error
