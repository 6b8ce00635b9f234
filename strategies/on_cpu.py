"""A text encoder stays in host memory and computes there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import TEXT_ENCODING, Component, Facts
from memplan.run import OnHost, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.way_back import done, homes
from .rules.refusals import check_free, frees_nothing, willing


@dataclass(frozen=True)
class OnCpu(Strategy):
    """A text encoder stays in host memory and computes there, while the rest is on the device.

    It holds nothing on the device, and no copy of its weights crosses the link, only what it returns. Exact, up to the
    rounding of the CPU's kernels. The pipeline must ask the library where each component computes, as those of FLUX,
    SDXL and Wan do since diffusers 0.42; the dry run notices which do. Where it joins what two encoders return before
    it moves that, as SDXL's does, both have to be there: `also` names the other.

    It costs time, as a CPU is hundreds of times slower: plans are charged for what it computes at the rate of a CPU of
    8 cores. Groups hold little more of an encoder on the device and are faster, so it is searched only where nothing
    fits without it, and can always be named. Its weights and activations are in host memory; the activations are
    counted as the device's kernels hold them.

    Traps: many CPUs compute several times slower in float16 and bfloat16 than in float32; pipe.to("cuda") fetches it
    again, so move the components one by one; model_offload and sequential_offload take every component, and the former
    hooks all of them anew after each call: put the others in groups with group_offload.
    """

    component: str = "text_encoder"
    also: str = ""

    name: ClassVar[str] = "on_cpu"
    last_resort: ClassVar[bool] = True

    @property
    def seats(self) -> frozenset[Seat]:
        """Where these components live."""
        return frozenset(Seat(Decision.PLACEMENT, name) for name in self.components)

    @property
    def components(self) -> tuple[str, ...]:
        """`component`, and those that `also` names, joined by "+"."""
        return (self.component, *filter(None, self.also.split("+")))

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each text encoder that may, or for those that may only together."""
        yield from willing((cls(first, "+".join(rest)) for first, *rest in facts.trace.host_side), facts)

    def refuses(self, run: Run) -> str | None:
        """Refuses what is no text encoder, what the pipeline keeps elsewhere, and what every placement refuses."""
        others = (name for name in self.components if run.facts.trace.phases(name) != frozenset({TEXT_ENCODING}))
        other = next(others, None)
        if other is not None:
            return f"only text encoders compute on the CPU, and this call does not use {other} as one"
        group = next((group for group in run.facts.trace.host_side if self.component in group), ())
        kind, missing = run.facts.model.class_name, [name for name in group if name not in self.components]
        if not group or not set(self.components) <= set(group):
            return f"{kind} has {' and '.join(self.components)} compute on its own device, or apart from each other"
        if missing:
            joined = f"{kind} joins what {' and '.join(group)} return before it moves that"
            return f"{joined}: add also={'+'.join(missing)}"
        parts = [run.facts.model.component(name) for name in self.components]
        stored = next((p.name for p in parts if run.stored(p.name).format), None)
        unknown = "is to be stored otherwise, and how its layers run on the CPU is not known here"
        planned = f"{stored} {unknown}" if stored else None
        return frees_nothing(run) or planned or next(filter(None, map(_unmoved, parts)), None)

    def redraw(self, run: Run) -> Run:
        """They compute on the host."""
        for name in self.components:
            run = run.place(name, OnHost())
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        """Moves them to the CPU, where they may be already. Raises BadInput for one that is offloaded already."""
        parts = [getattr(pipe, name) for name in self.components]
        for name, part in zip(self.components, parts, strict=True):
            check_free(name, part)
        ways = [homes(part) for part in parts]

        def undo() -> None:
            for way in ways:
                way()

        return done(lambda: [part.to("cpu") for part in parts], undo)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line for each."""
        return tuple(f'pipe.{name}.to("cpu")' for name in self.components)


def _unmoved(component: Component) -> str | None:
    """The sentence about weights that are in a quantizer's format, or shared."""
    if any(weight.dtype == "uint8" and not weight.buffer for weight in component.weights):
        return f"{component.name} is stored quantized, and how its layers run on the CPU is not known here"
    return component.lack("own_weights")
