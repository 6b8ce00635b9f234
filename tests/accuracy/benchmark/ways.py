"""The ways to run a pipeline that are held against each other: plans of memplan, and what other libraries do.

diffusers' own offloads are plans in memplan's words: applied, they are the library's own calls with the same settings,
and they can be priced. mmgp, accelerate's device maps and cache-dit are called themselves, and are not priced. None of
the three has been run by this script yet: their calls are those of their documentation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from memplan import planner
from memplan.applier import apply
from memplan.errors import NothingFits
from memplan.faces.api import named, placed
from memplan.facts import Facts
from memplan.planner import PREFERENCES, Plan
from memplan.registry import EVERYTHING, strategies
from memplan.simulator.device import context
from tests.comparison.chart import streamed
from tests.comparison.parts import activations, forwards, joined, willing

Planned = Callable[[Facts], Plan]
Made = Callable[[Any, Facts, str], None]
SHARE = 0.9
"""Of the memory that activations leave: what device maps may fill with weights."""


@dataclass(frozen=True)
class Way:
    """A plan of memplan that is applied, or `made`: what another library does. `package` has to be installed."""

    planned: Planned | None = None
    made: Made | None = None
    package: str = ""

    @property
    def there(self) -> bool:
        """Whether what it needs is installed."""
        return not self.package or find_spec(self.package) is not None


def _pick(preference: str) -> Way:
    def planned(facts: Facts) -> Plan:
        found = planner.recommend(facts, strategies())
        plan = found.pick(preference)
        if plan is None:
            raise NothingFits(f"the nearest plan needs {', and '.join(map(str, found.nearest.shortages))}")
        return plan

    return Way(planned)


def _words(text: Callable[[Facts], str]) -> Way:
    return Way(lambda facts: named(facts, [text(facts)]))


def in_blocks(facts: Facts) -> str:
    """Group offload block by block with a stream; at leaf level, or without a stream, where that cannot be."""
    found: list[str] = []
    for name in forwards(facts):
        block = f"group_offload:{name},level=block_level,blocks=1"
        ways = (f"{block},stream=true", block, f"group_offload:{name},stream=true", f"group_offload:{name}")
        found += [way for way in ways if willing(facts, way)][:1]
    return joined(found) or EVERYTHING


def _mmgp(profile: str) -> Way:
    def made(pipe: Any, facts: Facts, device: str) -> None:
        mmgp: Any = import_module("mmgp")
        mmgp.offload.profile(pipe, getattr(mmgp.profile_type, profile))  # it goes by the whole card, not by the cap

    return Way(made=made, package="mmgp")


def device_maps(pipe: Any, facts: Facts, device: str) -> None:
    """Denoisers and text encoders by accelerate's device maps, each with its share of the memory; the rest is there."""
    from accelerate import dispatch_model, infer_auto_device_map

    names, model = forwards(facts), facts.model
    beside = sum(part.size for part in model.components if part.name not in names)
    free = facts.machine.vram - context(facts.machine.gpu) - activations(facts) - beside
    total = sum(model.component(name).size for name in names)
    for name, part in _modules(pipe).items():
        if name not in names:
            part.to(device)
            continue
        room = max(int(SHARE * free * model.component(name).size / total), 0)
        most: Any = {"cpu": facts.machine.ram} | ({0: room} if device == "cuda" else {})
        whole = getattr(part, "_no_split_modules", None) or []
        dispatch_model(part, infer_auto_device_map(part, max_memory=most, no_split_module_classes=whole))


def cached(pipe: Any, facts: Facts, device: str) -> None:
    """cache-dit with its defaults, which leaves out work of some steps and so is not exact, under model offload."""
    cache_dit: Any = import_module("cache_dit")
    cache_dit.enable_cache(pipe)
    pipe.enable_model_cpu_offload(device=device)


def _modules(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


WAYS: Mapping[str, Way] = {
    **{f"memplan:{preference}": _pick(preference) for preference in PREFERENCES},
    "all-on-gpu": _words(lambda facts: EVERYTHING),
    "diffusers:model": _words(lambda facts: "model_offload"),
    "diffusers:sequential": _words(lambda facts: "sequential_offload"),
    "diffusers:group-leaf": _words(streamed),
    "diffusers:group-block": _words(in_blocks),
    "mmgp:2": _mmgp("HighRAM_LowVRAM"),
    "mmgp:4": _mmgp("LowRAM_LowVRAM"),
    "accelerate:device-map": Way(made=device_maps),
    "cache-dit:model": Way(made=cached, package="cache_dit"),
}


def carry_out(way: Way, plan: Plan | None, pipe: Any, facts: Facts, device: str) -> None:
    """Have the pipeline run that way; components that the plan gives no place go to the device."""
    if plan is not None:
        apply(placed(plan), pipe, device)
    elif way.made is not None:
        way.made(pipe, facts, device)
