"""A call that keeps gradients: what is asked for, and what one of its forwards and backwards holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Differentiable:
    """A call of a pipeline that keeps gradients through its whole solve, or only through its `last` steps.

    With `last` its gradients are others than those of the whole solve.
    """

    last: int | None = None

    def __str__(self) -> str:
        """In words, as a report shows it."""
        if self.last is None:
            return "through the whole call"
        return f"through the last {self.last} steps" if self.last > 1 else "through the last step"


@dataclass(frozen=True, slots=True)
class Passes:
    """Bytes of one forward that keeps gradients and of its backward, beside weights and what was there before.

    `saved` is what the forward leaves for its backward, its result included, and `forward` the most while it runs.
    `backward` is the most while the backward runs that makes the gradients of the weights, and `again` the most beside
    such gradients that are there already. `gradients` are those of the weights, and `given` what of its arguments is
    its own.
    """

    saved: int
    forward: int
    backward: int
    again: int
    gradients: int = 0
    given: int = 0
