"""Device memory of a solve that keeps gradients, and of its backward pass.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174: what backward needs of each stage
is kept until then, or made anew from what the stage was given. Here the stages are the forwards of a solve.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    """One forward of one component and its backward, in bytes beside the weights and what was there before.

    `saved` is what the forward leaves for its backward, its result included, and `forward` the most while it runs.
    `backward` is the most while the backward runs that makes the gradients of the weights, and `again` the most beside
    such gradients that are there already; both begin with `saved`. `gradients` are those of the weights.
    A stage that is `remade` keeps `given` alone, which is what of its arguments is its own, and its backward makes the
    forward again.
    """

    component: str
    saved: int
    forward: int
    backward: int
    again: int
    gradients: int = 0
    given: int = 0
    remade: bool = False

    @property
    def kept(self) -> int:
        """What waits for the backward."""
        return self.given if self.remade else self.saved

    @property
    def first(self) -> int:
        """The most while its backward runs, which makes the gradients of the weights."""
        return self.given + max(self.forward, self.backward) if self.remade else self.backward

    @property
    def later(self) -> int:
        """The most while its backward runs, beside gradients that are there already."""
        return self.given + max(self.forward, self.again) if self.remade else self.again


def solve(step: Stage, steps: int, *, last: int | None = None, remade: bool = False) -> tuple[Stage, ...]:
    """The stages that keep gradients where `steps` forwards are made, or only the `last` of them do."""
    kept = steps if last is None else min(last, steps)
    return (replace(step, remade=remade),) * kept


def peak(stages: Sequence[Stage], plain: int = 0) -> int:
    """The most bytes that the forwards of `stages`, in order, and their backward pass hold at once.

    `plain` is the most of a forward without gradients, of which those before the first stage are.
    """
    return max(plain, *forwards(stages), *backwards(stages), 0)


def forwards(stages: Sequence[Stage]) -> Iterator[int]:
    """The most bytes held while each of the forwards runs, in order."""
    before = 0
    for stage in stages:
        yield before + stage.forward
        before += stage.kept


def backwards(stages: Sequence[Stage]) -> Iterator[int]:
    """The most bytes held while each of the backwards runs, that of the last stage first."""
    before = sum(stage.kept for stage in stages)
    made: dict[str, int] = {}
    for stage in reversed(stages):
        before -= stage.kept
        own = stage.later if stage.component in made else stage.first
        yield before + sum(made.values()) + own
        made[stage.component] = stage.gradients
