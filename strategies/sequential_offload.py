"""Each module's own weights are on the device only while that module runs."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import SEQUENTIAL, Component, Model
from memplan.run import InGroups, Placement, Run
from memplan.strategy import Undo

from .live.way_back import attributes, homes
from .rules.refusals import check_free, stuck
from .rules.whole_pipeline import WholePipeline


@dataclass(frozen=True)
class SequentialOffload(WholePipeline):
    """Everything is in host memory, and every module copies its own weights to the device when it is called.

    Exact, and of each component only the largest single layer is there. It does what diffusers'
    enable_sequential_cpu_offload() does. Nothing is pinned and nothing is copied back, so it costs one copy of each
    component on every forward, and no more host memory than the weights.

    It is the slowest of all: each layer waits for its copy, out of ordinary memory. group_offload with stream=true
    copies as much, ahead of time.

    Traps: buffers stay on the device, unless their component owns a parameter at its root; modules whose weights are
    read without calling them break; meanwhile the weights are on the meta device, so load and save none.
    """

    name: ClassVar[str] = "sequential_offload"
    known_as: ClassVar[tuple[str, ...]] = ("sequential_cpu_offload", "enable_sequential_cpu_offload", "offload")
    away: ClassVar[Placement] = InGroups(SEQUENTIAL)

    @staticmethod
    def stay(model: Model) -> tuple[str, ...]:
        """What the class excludes."""
        return model.never_sequential

    def lack(self, run: Run, component: Component) -> str | None:
        """Components that would break."""
        return run.lack(component.name, SEQUENTIAL) or stuck(run, component, "leaf_level")

    def apply(self, pipe: Any, device: str) -> Undo:
        """Hooks every module that has weights. Raises BadInput for a pipeline that is offloaded already."""
        parts = {name: getattr(pipe, name) for name in self.components}
        for name, part in parts.items():
            check_free(name, part)
        with ExitStack() as undos:
            for name, part in parts.items():
                undos.callback(_way_back(part))
                _place(part, device, stays=name in pipe._exclude_from_cpu_offload)
            return undos.pop_all().close

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """What pipe.enable_sequential_cpu_offload() does, which takes no CPU for a device."""
        return (
            "import torch",
            "from accelerate import cpu_offload",
            "for name, part in pipe.components.items():",
            "    if isinstance(part, torch.nn.Module) and name not in pipe._exclude_from_cpu_offload:",
            "        own_weights = len(part._parameters) > 0",
            f'        cpu_offload(part.to("cpu"), torch.device("{device}"), offload_buffers=own_weights)',
            "    elif isinstance(part, torch.nn.Module):",
            f'        part.to("{device}")',
        )


def _place(part: Any, device: str, stays: bool) -> None:
    import torch
    from accelerate import cpu_offload

    if stays:
        part.to(device)
    else:
        cpu_offload(part.to("cpu"), torch.device(device), offload_buffers=len(part._parameters) > 0)


def _way_back(part: Any) -> Undo:
    """Takes the hooks off and puts the same tensors back where they were: accelerate would make new ones."""
    home, before = homes(part), [attributes(module, "forward") for module in part.modules()]
    tables = [table for module in part.modules() for table in (module._parameters, module._buffers)]
    tensors = [dict(table) for table in tables]

    def undo() -> None:
        from accelerate.hooks import remove_hook_from_module

        remove_hook_from_module(part, recurse=True)
        for table, found in zip(tables, tensors, strict=True):
            table.update(found)
        for restore in (*before, home):
            restore()

    return undo
