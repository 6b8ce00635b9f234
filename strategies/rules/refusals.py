"""Why weights cannot be moved: the sentences that placements share."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

from memplan.errors import BadInput
from memplan.facts import Call, Component, Facts, Grouping, Trace
from memplan.run import Run
from memplan.strategy import STREAMED, Strategy

S = TypeVar("S", bound=Strategy)


def willing(candidates: Iterable[S], facts: Facts) -> Iterator[S]:
    """Those that do not refuse the run on their own."""
    return (strategy for strategy in candidates if not strategy.refuses(Run(facts)))


def frees_nothing(run: Run) -> str | None:
    """The sentence for a device without a memory of its own."""
    gpu = run.facts.machine.gpu
    if gpu is None or not gpu.unified:
        return None
    return f"the memory of {gpu.name} is the host's own, so offloading would free nothing"


def no_dtype(run: Run, dtype: str, name: str) -> str | None:
    """The sentence for a device without the dtype in which technique `name` stores weights."""
    gpu = run.facts.machine.gpu
    if gpu is None or dtype not in gpu.lacks:
        return None
    return f"{name} stores weights in {dtype}, which torch does not have on {gpu.name}"


def stuck(run: Run, component: Component, level: str) -> str | None:
    """The sentence about weights that `component` shares, or about a called module of it that breaks at `level`."""
    return component.lack("own_weights") or _broken(run.facts.trace, component, level)


@lru_cache(maxsize=256)
def _broken(trace: Trace, component: Component, level: str) -> str | None:
    calls = [call for call in trace.calls if call.component == component.name]
    called = {f"{level}:{path}" for call in calls for path in call.modules}
    return next((sentence for technique, sentence in component.lacks if technique in called), None)


def read_while_away(run: Run, component: Component, grouping: Grouping) -> str | None:
    """The sentence about a module that is called in this run while the group of its weights is not there."""
    for call in (call for call in run.facts.trace.calls if call.component == component.name):
        for path, here in _openings(call, grouping):
            if not _weights_of(component, grouping, path) <= here:
                return f"{component.class_name} calls {path or 'itself'} while the weights that it reads are away"
    return None


def _weights_of(component: Component, grouping: Grouping, path: str) -> set[int]:
    """The weights that module `path` itself owns; all that are tied where it has none under their first name."""
    if any(weight.name.startswith(f"{path}.".removeprefix(".")) for weight in component.weights):
        return {number for number, weight in enumerate(component.weights) if weight.module == path}
    times = Counter(number for group in grouping.groups for number in set(group.weights))
    return {number for number, groups in times.items() if groups > 1}


def _openings(call: Call, grouping: Grouping) -> Iterator[tuple[str, set[int]]]:
    """Each module that `call` enters, and the weights that groups have brought in by then."""
    here: set[int] = set()
    for segment in call.segments:
        for path in (call.modules[module] for module in segment.enters):
            here |= {i for group in grouping.groups if group.onload == path for i in group.weights}
            yield path, here
        for path in (call.modules[module] for module in segment.leaves):
            here -= {i for group in grouping.groups if group.offload == path for i in group.weights}


def check_free(name: str, part: Any) -> None:
    """Raises BadInput for a component whose weights a library moves already."""
    for module in part.modules():
        if hasattr(module, "_hf_hook"):
            raise BadInput(f"{name} is offloaded by accelerate already; call pipe.remove_all_hooks() first")
        if STREAMED in vars(module):
            raise BadInput(f"{name} is streamed in part already; undo that first")
        registry = vars(module).get("_diffusers_hook")
        if registry and registry.get_hook("group_offloading"):
            raise BadInput(f"{name} is offloaded in groups already; reload the pipeline to start afresh")
