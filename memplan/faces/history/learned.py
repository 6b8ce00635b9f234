"""What earlier runs on this machine teach about a model: how much more device memory they took than predicted."""

from dataclasses import replace
from importlib.metadata import version

from memplan.faces.history import database
from memplan.faces.history.record import Place
from memplan.facts import Gpu, Learned, Machine, Model


def with_learned(here: Machine, model: Model) -> Machine:
    """The machine at hand with what the runs of pipelines of this class on its card teach; as it is where none do.

    Only runs count that a GPU measured, on the same card under the same torch, diffusers and memplan.
    """
    if here.gpu is None:
        return here
    runs = [run for run in database.load(model.class_name) if run.compared and _same(run.place, here.gpu)]
    more = [run.excess for run in runs if run.excess]
    return replace(here, learned=Learned(len(runs), len(more), max(more))) if more else here


def _same(place: Place, gpu: Gpu) -> bool:
    versions = tuple(map(version, ("torch", "diffusers", "memplan")))
    return (place.card, place.torch, place.diffusers, place.memplan) == (gpu.name, *versions)
