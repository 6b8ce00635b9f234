"""Whole components take turns on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.run import OnCall, Resident, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from ._way_back import attributes, homes

LEFT_ON_PIPE = ("_all_hooks", "_offload_device", "_offload_gpu_id")
"""What enable_model_cpu_offload() writes on the pipeline."""


@dataclass(frozen=True)
class ModelOffload(Strategy):
    """Each component is in host memory until it is called, and goes back when the next one of the chain is called.

    Exact, and cheap in time: each component crosses the link once each way per call of the pipeline, however many
    steps it runs. It lowers the peak to about the largest component and its activations, so it helps when the
    components fit one by one but not together.

    Traps: a component outside the class's chain (a ControlNet, say) stays until the end; one that is loaded but not
    called leaves its predecessor on the device, so set it to None; after a failed call the last component stays.
    """

    components: tuple[str, ...]

    name: ClassVar[str] = "model_offload"

    @property
    def seats(self) -> frozenset[Seat]:
        """Where every component lives."""
        return frozenset(Seat(Decision.PLACEMENT, component) for component in self.components)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One, for pipelines whose class has a chain."""
        strategy = cls(tuple(component.name for component in facts.model.components))
        if not strategy.refuses(Run(facts)):
            yield strategy

    def refuses(self, run: Run) -> str | None:
        """Refuses pipelines without a chain, parts of a pipeline, and components that accelerate cannot place."""
        model, gpu = run.facts.model, run.facts.machine.gpu
        if gpu is not None and gpu.unified:
            return f"the memory of {gpu.name} is the host's own, so offloading would free nothing"
        if not model.offload_order:
            return f"{model.class_name} has no order in which its components could be offloaded"
        left_out = [c.name for c in model.components if c.name not in self.components]
        if left_out:
            return f"model offload takes every component of the pipeline; {', '.join(left_out)} would be left out"
        for component in model.components:
            bare = all(weight.buffer for weight in component.weights) and not component.lack("own_weights")
            if bare and component.name not in model.never_offloaded:
                return f"{component.name} has no parameters, by which accelerate finds where a component is"
        return None

    def redraw(self, run: Run) -> Run:
        """Every component comes when called, except those that the class never offloads."""
        for component in self.components:
            stays = component in run.facts.model.never_offloaded
            run = run.place(component, Resident() if stays else OnCall())
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        """Enables it on the pipeline. Raises BadInput for one that is offloaded already."""
        parts = {name: getattr(pipe, name) for name in self.components}
        for name, part in parts.items():
            if hasattr(part, "_hf_hook"):
                raise BadInput(f"{name} is offloaded by accelerate already; call pipe.remove_all_hooks() first")
        before = [attributes(pipe, *LEFT_ON_PIPE)]
        for part in parts.values():
            before += [attributes(part, "forward"), homes(part)]

        def undo() -> None:
            pipe.remove_all_hooks()
            for restore in before:
                restore()

        try:
            pipe.enable_model_cpu_offload(device=device)
        except BaseException:
            undo()
            raise
        return undo

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f'pipe.enable_model_cpu_offload(device="{device}")',)
