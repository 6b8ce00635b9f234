"""Each module's own weights are on the device only while that module runs."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import SEQUENTIAL, Facts
from memplan.run import InGroups, Resident, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from ._way_back import attributes, homes


@dataclass(frozen=True)
class SequentialOffload(Strategy):
    """Everything is in host memory, and every module copies its own weights to the device when it is called.

    Exact, and of each component only the largest single layer is there. It does what diffusers'
    enable_sequential_cpu_offload() does. Nothing is pinned and nothing is copied back, so it costs one copy of each
    component on every forward, and no more host memory than the weights.

    It is the slowest of all: each layer waits for its copy, out of ordinary memory. group_offload with stream=true
    copies as much, ahead of time.

    Traps: buffers stay on the device, unless their component owns a parameter at its root; modules whose weights are
    read without calling them break; meanwhile the weights are on the meta device, so load and save none.
    """

    components: tuple[str, ...]

    name: ClassVar[str] = "sequential_offload"

    @property
    def seats(self) -> frozenset[Seat]:
        """Where every component lives."""
        return frozenset(Seat(Decision.PLACEMENT, component) for component in self.components)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One, for pipelines in which nothing would break."""
        strategy = cls(tuple(component.name for component in facts.model.components))
        if not strategy.refuses(Run(facts)):
            yield strategy

    def refuses(self, run: Run) -> str | None:
        """Refuses parts of a pipeline, whose other parts would then look for the meta device, and what would break."""
        model, gpu = run.facts.model, run.facts.machine.gpu
        if gpu is not None and gpu.unified:
            return f"the memory of {gpu.name} is the host's own, so offloading would free nothing"
        left_out = [c.name for c in model.components if c.name not in self.components]
        if left_out:
            return f"sequential offload takes every component of the pipeline; {', '.join(left_out)} would be left out"
        called = {(call.component, f"leaf_level:{path}") for call in run.facts.trace.calls for path in call.modules}
        for component in model.components:
            for technique, sentence in component.lacks:
                breaks = technique == SEQUENTIAL or (component.name, technique) in called
                if breaks and component.name not in model.never_sequential:
                    return sentence
        return None

    def redraw(self, run: Run) -> Run:
        """Every component comes module by module, except those that the class never offloads."""
        for component in self.components:
            stays = component in run.facts.model.never_sequential
            run = run.place(component, Resident() if stays else InGroups(SEQUENTIAL))
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        """Hooks every module that has weights. Raises BadInput for a pipeline that is offloaded already."""
        parts = {name: getattr(pipe, name) for name in self.components}
        for name, part in parts.items():
            if any(hasattr(module, "_hf_hook") for module in part.modules()):
                raise BadInput(f"{name} is offloaded by accelerate already; call pipe.remove_all_hooks() first")
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
