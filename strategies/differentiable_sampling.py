"""A call that keeps gradients keeps less, and makes forwards of its denoisers again in the backward."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.errors import Unsupported
from memplan.facts import CHECKPOINTED, DENOISING, REMADE, Facts, Purpose
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy, Switch, Undo

from .live.checkpoints import Again, checkpointed, every_block

STEP, BLOCK = "step", "block"
WAYS = {STEP: REMADE, BLOCK: f"{CHECKPOINTED}:1"}
"""How the dry run names forwards that are checkpointed as a whole, and in their blocks."""


@dataclass(frozen=True)
class DifferentiableSampling(Strategy):
    """Forwards of a call that keeps gradients keep little for the backward, which makes them again.

    It is for calls inside of memplan.differentiable(). With checkpoint=step each forward of a denoiser keeps what it
    was given, and its backward holds the activations of one whole forward; with checkpoint=block each of its blocks
    does, so that one block's are held, beside what all blocks of all steps were given. Either costs each forward once
    more. Gradients are those without it.

    Traps: step needs the memory of one forward with all that it keeps, so that block may be the only one that fits;
    with many steps and many blocks it is the other way round. Only the last steps keep gradients with last=K, or
    --last K, which changes them and is no technique for that reason. It is no setting of a pipeline: backward() has to
    stand inside of the context.
    """

    components: tuple[str, ...]
    checkpoint: str = STEP

    name: ClassVar[str] = "differentiable_sampling"
    known_as: ClassVar[tuple[str, ...]] = ("differentiable",)
    purpose: ClassVar[Purpose] = Purpose.GRADIENTS

    @property
    def seats(self) -> frozenset[Seat]:
        """What forwards of these denoisers keep."""
        return frozenset(Seat(Decision.CHECKPOINTS, name) for name in self.components)

    @classmethod
    def takes(cls, facts: Facts) -> tuple[str, ...]:
        """All denoisers."""
        return tuple(part.name for part in facts.model.components if DENOISING in facts.trace.phases(part.name))

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """By steps and by blocks, where something denoises."""
        denoisers = cls.takes(facts)
        yield from (cls(denoisers, checkpoint) for checkpoint in WAYS if denoisers)

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Switch]:
        """Blocks that are checkpointed; a forward that is made again as a whole is the same as one that is not."""
        return {} if settings.get("checkpoint", BLOCK) == STEP else {WAYS[BLOCK]: every_block}

    @staticmethod
    def in_blocks(part: Any, again: Again) -> Undo:
        """Has each block of `part` called through `again`; the value undoes it. Raises BadInput without blocks."""
        return checkpointed(part, 1, again)

    def refuses(self, run: Run) -> str | None:
        """Refuses calls that keep no gradients, other checkpoints, and denoisers without blocks."""
        if run.facts.differentiable is None:
            return self.misplaced(run.facts)
        if self.checkpoint not in WAYS:
            return f'{self.name}: checkpoint is "{STEP}" or "{BLOCK}", not "{self.checkpoint}"'
        if set(self.components) != set(self.takes(run.facts)):
            return f"{self.name} is for all denoisers at once: {', '.join(self.takes(run.facts))}"
        if self.checkpoint == STEP:
            return None
        failed = (run.facts.trace.failure(name, WAYS[BLOCK]) for name in self.components)
        failure = next(filter(None, failed), None)
        return f"{self.name} cannot checkpoint blocks, but checkpoint=step: {failure}" if failure else None

    def redraw(self, run: Run) -> Run:
        """The forwards of the denoisers are made that way."""
        for name in self.components:
            run = run.vary(name, WAYS[self.checkpoint])
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        """Raises Unsupported: gradients are kept for the length of a context, which only the user's code can open."""
        raise Unsupported(f"{self.name} is no setting of a pipeline: make the call, and backward(), {self._context}")

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """The context, with the call inside."""
        return ("import memplan", f"{self._context}:", "    ...  # the call, its loss, and loss.backward()")

    @property
    def _context(self) -> str:
        return f'with memplan.differentiable(pipe, checkpoint="{self.checkpoint}")'
