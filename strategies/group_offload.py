"""Parts of a component take turns on the device."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar, Self

from memplan.facts import CHANNELS_LAST, Component, Facts, Grouping
from memplan.run import FromDisk, InGroups, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.files import fresh, read_back
from .live.way_back import attributes, done, homes
from .rules.refusals import check_free, frees_nothing, read_while_away, stuck, willing

HAVE_STREAMS = ("cuda", "rocm", "xpu")
"""Kinds of device on which torch can copy beside the computation."""
LEVELS = ("leaf_level", "block_level")
HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", "group_offloading")
"""What diffusers installs; it has no call that takes them away."""


@dataclass(frozen=True)
class GroupOffload(Strategy):
    """A component is in host memory, and each group of its layers is on the device only while that group runs.

    Exact. `level` "block_level" moves `blocks` transformer blocks at a time and keeps everything outside the block
    lists on the device for the whole forward; "leaf_level" moves single layers and needs the least memory.
    With `stream` the next group is copied while this one computes: about two groups on the device, near native speed
    where computing a group takes longer than copying it, and half the traffic.

    It costs a copy of the component on every forward, so on every step. Streaming pins host memory, each tensor
    rounded up to a power of two: 1.0 to 1.8 times the component; `low_cpu_mem` pins group by group instead, slower.

    Three settings are for plans that you name, and are not searched. `record_stream` with `stream` does not wait for
    the computation before it drops a group. It is priced like `stream`: PyTorch's allocator gives what was dropped
    away again only once the device is done with it, so a card with room reserves more, and a full one waits; that is
    read from its source, not measured. `modules` names modules inside which blocks are looked for too, such as
    "encoder" of T5: fewer and larger copies than at leaf level. `disk` names a folder with room for the weights, which
    are then in files instead of host memory; each group is read anew each time, how fast is not priced.

    Traps: text encoders keep their blocks too deep for block level without `modules`, as most VAEs do; a second
    enable_group_offload on the same component is silently ignored; with `disk` load no LoRA, as the files stay the old.
    """

    component: str
    level: str = "leaf_level"
    blocks: int | None = None
    stream: bool = False
    low_cpu_mem: bool = False
    record_stream: bool = False
    modules: str = ""
    disk: str = ""

    name: ClassVar[str] = "group_offload"
    known_as: ClassVar[tuple[str, ...]] = ("block_swap", "enable_group_offload", "offload", "streaming")
    midway: ClassVar[bool] = True

    @property
    def seats(self) -> frozenset[Seat]:
        """Where this component lives."""
        return frozenset({Seat(Decision.PLACEMENT, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """Every grouping of every component that runs, but for named modules; single blocks and leaves also streamed.

        Left out is what needs more of something that is priced, and less of nothing; and folders, which nobody named.
        """
        ways = ((False, False), (True, False), (True, True))
        running = {call.component for call in facts.trace.calls}.union(facts.trace.reached)
        found = ((c.name, g) for c in facts.model.components if c.name in running for g in c.groupings)
        every = [(name, g) for name, g in found if g.level in LEVELS and not g.modules]
        yield from willing((cls(name, g.level, g.blocks, *way) for name, g in every for way in ways), facts)

    def refuses(self, run: Run) -> str | None:
        """Refuses what the library refuses, what would break, and what would change nothing."""
        component = run.facts.model.component(self.component)
        grouping = component.grouping(self.level, self.blocks, self.modules)
        level = None if self.modules else run.lack(self.component, self.level)
        lack = run.lack(self.component, "group_offload") or level or stuck(run, component, self.level)
        if frees_nothing(run) or lack:
            return frees_nothing(run) or lack
        if self.level not in LEVELS or grouping is None:
            return f"{component.class_name} does not split that way: {_choices(component)}"
        if not component.weights:
            return f"{component.name} has no weights of its own to offload"
        if self.modules and read_while_away(run, component, grouping):
            return read_while_away(run, component, grouping)
        if self.disk:
            return run.lack(self.component, "disk") or self._refuses_disk(run, component, grouping)
        return self._refuses_stream(run) if self.stream or self.low_cpu_mem or self.record_stream else None

    def _refuses_disk(self, run: Run, component: Component, grouping: Grouping) -> str | None:
        if CHANNELS_LAST in run.variant(component.name):
            return f"{component.name} is channels-last, and safetensors writes contiguous weights only: leave out disk"
        if self.stream or self.low_cpu_mem or self.record_stream:
            return "the library waits for each file it reads, with a stream or without: leave out stream"
        times = Counter(number for group in grouping.groups for number in set(group.weights))
        number, most = max(times.items(), key=itemgetter(1), default=(0, 1))
        if most == 1:
            return None
        name = component.weights[number].name
        return f"{name} of {component.name} is in two groups: the library would empty it, then write it to a file"

    def _refuses_stream(self, run: Run) -> str | None:
        gpu = run.facts.machine.gpu
        if not self.stream:
            return "low_cpu_mem and record_stream say how groups are streamed; add stream=true"
        if self.modules:
            return "the library fails where two modules with weights beside their blocks are streamed: leave out stream"
        if gpu is None or gpu.kind not in HAVE_STREAMS:
            return f"streams need a CUDA, ROCm or XPU device, and this machine has {gpu.kind if gpu else 'none'}"
        if self.blocks not in (None, 1):
            return f"the library streams one block at a time, not {self.blocks}; set blocks=1"
        methods = {call.method for call in run.facts.trace.calls if call.component == self.component}
        if methods and "forward" not in methods:
            return f"{self.component} is never called as forward(), from which the library learns what to copy ahead"
        return run.lack(self.component, "stream")

    def redraw(self, run: Run) -> Run:
        """The component comes in groups."""
        if self.disk:
            return run.place(self.component, FromDisk(self.level, self.blocks, self.modules))
        placement = InGroups(self.level, self.blocks, self.stream, self.low_cpu_mem, self.modules)
        return run.place(self.component, placement)

    def apply(self, pipe: Any, device: str) -> Undo:
        """Hooks the component. Raises BadInput for one that is offloaded in groups already."""
        from diffusers.hooks import apply_group_offloading

        part = getattr(pipe, self.component)
        check_free(self.component, part)
        back, settings = way_back(part), self._settings()
        if not self.disk:
            return done(lambda: apply_group_offloading(part, device, **settings), back)
        folder = fresh(self.component, self.disk)
        read = read_back(part, folder)

        def undo() -> None:
            try:
                read()
            finally:
                back()

        return done(lambda: apply_group_offloading(part, device, **settings, offload_to_disk_path=folder), undo)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A call of diffusers' function, which takes models of diffusers and of transformers alike.

        A folder of files lives as long as the component: it is deleted with it, or when the process ends.
        """
        settings = {"onload_device": device} | self._settings()
        shown = [f"{key}={json.dumps(v) if isinstance(v, str | list) else v}," for key, v in settings.items()]
        files, new = f"pipe.{self.component}.offload_folder", "tempfile.TemporaryDirectory"
        made = f'{files} = {new}(prefix="{self.component}-", dir={json.dumps(self.disk)})'
        return (
            *(["import tempfile"] if self.disk else []),
            "from diffusers.hooks import apply_group_offloading",
            *([made] if self.disk else []),
            "apply_group_offloading(",
            f"    pipe.{self.component},",
            *(f"    {setting}" for setting in shown),
            *([f"    offload_to_disk_path={files}.name,"] if self.disk else []),
            ")",
        )

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"offload_type": self.level}
        settings |= {"num_blocks_per_group": self.blocks} if self.blocks else {}
        settings |= {"use_stream": True} if self.stream else {}
        settings |= {"record_stream": True} if self.record_stream else {}
        settings |= {"block_modules": self.modules.split("+")} if self.modules else {}
        return settings | ({"low_cpu_mem_usage": True} if self.low_cpu_mem else {})


def way_back(part: Any) -> Undo:
    """Takes the hooks off again, also those of a LoRA loaded since, and leaves each module and weight as it is now."""
    before = [attributes(module, "forward") for module in part.modules()]
    hooked = {id(module) for module in part.modules() if hasattr(module, "_diffusers_hook")}
    home = homes(part)

    def undo() -> None:
        from diffusers.hooks import HookRegistry

        registry = HookRegistry.check_if_exists_or_initialize(part)
        for hook in HOOKS:
            registry.remove_hook(hook, recurse=True)
        registry.invalidate_child_registries_cache()
        for module in part.modules():
            if id(module) not in hooked and not getattr(vars(module).get("_diffusers_hook"), "hooks", True):
                del module._diffusers_hook
                vars(module).pop("forward", None)  # which `before` gives those back that had one
        for restore in (*before, home):
            restore()

    return undo


def _choices(component: Component) -> str:
    blocks = [str(g.blocks) for g in component.groupings if g.level == "block_level" and not g.modules]
    named = [f", or with blocks 1 and modules {g.modules}" for g in component.groupings if g.modules]
    return f"level is leaf_level, or block_level with blocks {', '.join(blocks)}{''.join(named)}"
