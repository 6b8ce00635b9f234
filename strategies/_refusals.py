"""Why weights cannot be moved: the sentences that placements share."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from memplan.errors import BadInput
from memplan.facts import Component, Facts
from memplan.run import Run
from memplan.strategy import Strategy

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


def stuck(run: Run, component: Component, level: str) -> str | None:
    """The sentence about weights of `component` that another one has too, or of a called module that breaks at `level`."""
    calls = [call for call in run.facts.trace.calls if call.component == component.name]
    called = {f"{level}:{path}" for call in calls for path in call.modules}
    broken = next((sentence for technique, sentence in component.lacks if technique in called), None)
    return component.lack("own_weights") or broken


def check_free(name: str, part: Any) -> None:
    """Raises BadInput for a component whose weights a library moves already."""
    for module in part.modules():
        if hasattr(module, "_hf_hook"):
            raise BadInput(f"{name} is offloaded by accelerate already; call pipe.remove_all_hooks() first")
        registry = vars(module).get("_diffusers_hook")
        if registry and registry.get_hook("group_offloading"):
            raise BadInput(f"{name} is offloaded in groups already; reload the pipeline to start afresh")
