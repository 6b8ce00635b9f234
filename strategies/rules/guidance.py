"""What techniques share that decide how a denoiser makes the passes of guidance."""

from collections.abc import Iterator
from typing import ClassVar, Self

from memplan.facts import Component, Facts
from memplan.run import Run
from memplan.strategy import Decision

from .other_way import OtherWay


class Guided(OtherWay):
    """Has the calls of a denoiser made another way, which is followed for those who ask."""

    decision: ClassVar[Decision] = Decision.GUIDANCE

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each denoiser that may."""
        for part in facts.model.components:
            if denoises(facts, part) and not part.lack(cls.lacks):
                yield cls(part.name)  # type: ignore[call-arg]

    def refuses(self, run: Run) -> str | None:
        """Refuses what is no denoiser, and calls that were not dry-run so or fail."""
        part = run.facts.model.component(self.component)
        if not denoises(run.facts, part):
            return f"{self.name} is for denoisers, and {self.component} is none"
        return super().refuses(run)

    def idle(self, run: Run) -> str:
        """For calls that were not dry-run so."""
        return f"{self.name} needs a dry run of its own: price the plan that names it"


def denoises(facts: Facts, part: Component) -> bool:
    """Whether it is a model of diffusers that is called as forward() and in no other way, as VAEs are not."""
    methods = {call.method for call in facts.trace.calls if call.component == part.name}
    return part.library == "diffusers" and methods == {"forward"}
