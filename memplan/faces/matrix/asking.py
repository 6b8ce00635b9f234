"""The cases that people name: every model on every card with every host memory, each with the arguments it takes."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from memplan.catalogue import models
from memplan.catalogue.gpus import cards
from memplan.errors import BadInput, NoGpu, did_you_mean
from memplan.faces.matrix.case import Case
from memplan.faces.quiet import libraries_quiet
from memplan.faces.target import machine
from memplan.probes.fakes.sizes import check_sizes
from memplan.probes.sources import look, open_pipeline


def cases(
    sources: Sequence[str], gpus: Sequence[str], rams: Sequence[float], call: Mapping[str, Any], asked: Case
) -> list[Case]:
    """Every case, model by model, each once; what they have in common is that of `asked`.

    Each model is asked for the arguments of `call` that it takes. Raises BadInput for a model or card that does not
    exist, with some that do, for a size that is none, and for an argument that no model takes. Without arguments it
    needs no torch.
    """
    check_sizes(call)
    names = list(dict.fromkeys(map(_name, sources)))
    machines = list(dict.fromkeys((_card(gpu, ram, asked), ram) for ram, gpu in product(rams, gpus)))
    calls = _calls(names, call)
    return [
        replace(asked, model=name, gpu=gpu, ram=ram, call=repr(calls[name]) if calls[name] else "")
        for name, (gpu, ram) in product(names, machines)
    ]


def _name(source: str) -> str:
    """A bundled model's own name, any other source as it is. Raises BadInput for what is none."""
    place = look(source)
    return models.find(source).name if isinstance(place, str) and models.is_bundled(source) else source


def _card(name: str, ram: float, asked: Case) -> str:
    """The name of the card in the catalogue. Raises BadInput for none, with some that there are."""
    try:
        gpu = machine(replace(asked, gpu=name, ram=ram).target).gpu
    except NoGpu as error:
        raise BadInput(error.why + ("" if "Do you mean" in error.why else _examples())) from error
    assert gpu is not None
    return gpu.name


def _examples() -> str:
    """The newest card of each maker, and how many there are."""
    names = [card.name for card in cards()]
    newest = {name.partition(" ")[0]: name for name in names}
    return f" It has {len(names)}, as {', '.join(newest.values())}."


# ---- what a call takes -----------------------------------------------------------------------------------------------
def _calls(names: Iterable[str], call: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments of `call` that each model takes. Raises BadInput for one that none does."""
    known = {name: taken(name) if call else frozenset[str]() for name in names}
    for argument in call:
        if not any(argument in names for names in known.values()):
            meant = did_you_mean(argument, sorted(frozenset().union(*known.values())))
            raise BadInput(f"none of the models takes an argument {argument!r}.{meant}")
    return {name: {n: value for n, value in call.items() if n in known[name]} for name in known}


def taken(name: str) -> frozenset[str]:
    """The arguments that the call of a model names."""
    with libraries_quiet():
        parameters = inspect.signature(_caller(name)).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self")


def _caller(name: str) -> Callable[..., Any]:
    """What is called: of a bundled model it is known without building any of it."""
    if models.is_bundled(name):
        import diffusers

        return getattr(diffusers, models.find(name).pipeline).__call__
    return type(open_pipeline(name).pipe).__call__
