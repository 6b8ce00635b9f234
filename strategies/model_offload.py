"""Whole components take turns on the device."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import Component, Model
from memplan.run import OnCall, Placement, Run
from memplan.strategy import Undo

from .live.way_back import attributes, done, homes
from .rules.refusals import check_free
from .rules.whole_pipeline import WholePipeline

LEFT_ON_PIPE = ("_all_hooks", "_offload_device", "_offload_gpu_id")
"""What enable_model_cpu_offload() writes on the pipeline."""


@dataclass(frozen=True)
class ModelOffload(WholePipeline):
    """Each component is in host memory until it is called, and goes back when the next one of the chain is called.

    Exact, and cheap in time: each component crosses the link once each way per call of the pipeline, however many
    steps it runs. It lowers the peak to about the largest component and its activations, so it helps when the
    components fit one by one but not together.

    Traps: a component outside the class's chain (a ControlNet, say) stays until the end; one that is loaded but not
    called leaves its predecessor on the device, so set it to None; after a failed call the last component stays.
    """

    name: ClassVar[str] = "model_offload"
    known_as: ClassVar[tuple[str, ...]] = ("cpu_offload", "model_cpu_offload", "enable_model_cpu_offload", "offload")
    midway: ClassVar[bool] = True
    away: ClassVar[Placement] = OnCall()

    @staticmethod
    def stay(model: Model) -> tuple[str, ...]:
        """What the chain does not name and the class excludes."""
        return model.never_offloaded

    def lack(self, run: Run, component: Component) -> str | None:
        """Components that accelerate cannot place or that break, or whose weights another one moves as well."""
        lack = run.lack(component.name, "model_offload") or component.lack("own_weights")
        if lack or any(not weight.buffer for weight in component.weights):
            return lack
        return f"{component.name} has no parameters, by which accelerate finds where a component is"

    def refuses(self, run: Run) -> str | None:
        """Refuses pipelines without a chain, and what every technique for whole pipelines refuses."""
        model = run.facts.model
        if not model.offload_order and not model.lack(self.name):
            return f"{model.class_name} has no order in which its components could be offloaded"
        return super().refuses(run)

    def apply(self, pipe: Any, device: str) -> Undo:
        """Enables it on the pipeline. Raises BadInput for one that is offloaded already."""
        parts = {name: getattr(pipe, name) for name in self.components}
        before = [attributes(pipe, *LEFT_ON_PIPE)]
        for name, part in parts.items():
            check_free(name, part)
            before += [attributes(part, "forward"), homes(part)]

        def undo() -> None:
            pipe.remove_all_hooks()
            for restore in before:
                restore()

        return done(lambda: pipe.enable_model_cpu_offload(device=device), undo)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f'pipe.enable_model_cpu_offload(device="{device}")',)
