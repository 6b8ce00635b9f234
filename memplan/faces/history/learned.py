"""What earlier runs on this machine teach about a model: how much more device memory and time they took."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from statistics import median

from memplan.faces.history import database
from memplan.faces.history.record import Place, Record
from memplan.facts import Gpu, Learned, Machine, Model


def with_learned(here: Machine, model: Model) -> Machine:
    """The machine at hand with what the runs of pipelines of this class on its card teach; as it is where none do.

    Only runs count that a GPU measured, on the same card under the same torch, diffusers and memplan.
    """
    if here.gpu is None:
        return here
    runs = [run for run in database.load(model.class_name) if run.compared and _same(run.place, here.gpu)]
    more = [run.excess for run in runs if run.excess]
    pace = _pace(runs)
    if not more and pace == 1:
        return here
    learned = Learned(len(runs), len(more), max(more, default=0), pace)
    return replace(here, rates=here.rates.slower(pace), learned=learned)


def _pace(runs: Iterable[Record]) -> float:
    """How many times as long as predicted calls take here: the median of calls that were made more than once.

    Of each the quickest run counts, as the first one in a process warms up.
    """
    known: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for run in runs:
        if run.pace:
            known[run.model, run.content, run.digest, run.plan].append(run.pace)
    return median([min(paces) for paces in known.values() if len(paces) > 1] or [1.0])


def _same(place: Place, gpu: Gpu) -> bool:
    versions = tuple(map(version, ("torch", "diffusers", "memplan")))
    return (place.card, place.torch, place.diffusers, place.memplan) == (gpu.name, *versions)
