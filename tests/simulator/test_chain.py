"""Who is on the device at each call under model offload is who accelerate's own hooks have there."""

from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate.hooks import CpuOffload

from memplan.facts import Component, Facts, Model, Trace, Weight
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import OnCall, Run
from memplan.simulator.chain import Chain
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs

Turn = tuple[str, frozenset[str]]
"""A component that is called, and the components on the device meanwhile."""
CPU = torch.device("cpu")
PRE_FORWARD = CpuOffload.pre_forward
INSIDE = ("forward", "_decode")
"""Methods that run after the hook has moved their component."""


# ---- the real hooks -------------------------------------------------------------------------------------------------
class Places:
    """Pretends that modules move: a component is where it was last sent, while its weights stay on the CPU."""

    def __init__(self, parts: dict[str, torch.nn.Module]) -> None:
        self.parts = parts
        self.where = dict.fromkeys(parts, CPU)
        self.turns: list[Turn] = []
        self.moving = False

    def watch(self, name: str) -> None:
        part: Any = self.parts[name]
        real = part.parameters
        part.parameters = lambda: iter([SimpleNamespace(device=self.where[name])]) if self.moving else real()
        part.to = lambda device, *_, **__: self.send(name, torch.device(device))
        for method in INSIDE:
            if hasattr(part, method):
                setattr(part, method, self.noting(name, getattr(part, method)))

    def send(self, name: str, device: torch.device) -> torch.nn.Module:
        self.where[name] = device
        return self.parts[name]

    def before_forward(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        self.moving = True
        try:
            return PRE_FORWARD(hook, *args, **kwargs)
        finally:
            self.moving = False

    def noting(self, name: str, call: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            turn = name, frozenset(n for n, device in self.where.items() if device != CPU)
            if not self.turns or self.turns[-1] != turn:
                self.turns.append(turn)
            return call(*args, **kwargs)

        return called


@contextmanager
def offloaded(pipe: Any) -> Generator[list[Turn]]:
    """The turns of a pipeline that believes its components move between two devices."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    places = Places(parts)
    for name in parts:
        places.watch(name)
    pipe.enable_model_cpu_offload(device="cpu")  # becomes cpu:0, which torch.device tells from cpu

    def pre_forward(hook: Any, *args: Any, **kwargs: Any) -> Any:
        return places.before_forward(hook, *args, **kwargs)

    with patch.object(CpuOffload, "pre_forward", pre_forward):
        yield places.turns


def real_turns(family: str) -> list[Turn]:
    pipe = build(family)
    with offloaded(pipe) as turns:
        pipe(**inputs(family))
    return turns


# ---- what the simulator says ----------------------------------------------------------------------------------------
def drawn_turns(family: str) -> list[Turn]:
    twin = open_pipeline(build(family))
    model, trace = measure(twin.pipe), dry_run(twin, inputs(family))
    chain = Chain.of(offload(model, trace))
    turns: list[Turn] = []
    for step in trace.timeline:
        name = trace.calls[step.call].component
        if not name:
            continue
        chain.call(name)
        turn = name, frozenset(chain.here)
        if not turns or turns[-1] != turn:
            turns.append(turn)
    return turns


def offload(model: Model, trace: Trace) -> Run:
    run = Run(Facts(facts_of(build("sd15")).machine, model, trace))
    for component in model.components:
        run = run.place(component.name, OnCall())
    return run


@pytest.mark.parametrize("family", ["flux", "sdxl", "sd3", "wan"])
def test_components_are_where_the_library_has_them(family: str) -> None:
    real = real_turns(family)
    assert drawn_turns(family) == real
    assert len({name for name, _ in real}) >= 3
    assert all(name in here for name, here in real)


# ---- the rules ------------------------------------------------------------------------------------------------------
def chain(order: tuple[str, ...], names: str = "abcd", never: tuple[str, ...] = ()) -> Chain:
    components = tuple(Component(n, n, "diffusers", "float32", (Weight("w", 1, "float32"),)) for n in names)
    return Chain.of(offload(Model("m", "M", components, order, never), Trace("cuda", (), ())))


def test_only_the_one_before_in_the_chain_goes() -> None:
    c = chain(("a", "b", "c"))
    for name in "ac":
        c.call(name)
    assert c.here == {"a", "c"}
    c.call("b")
    assert c.here == {"b", "c"}


def test_what_is_outside_the_chain_stays_until_the_end() -> None:
    c = chain(("a", "b"))
    for name in "dab":
        c.call(name)
    assert c.here == {"d", "b"}
    c.finish()
    assert c.here == set()
    assert c.arrivals == ["d", "a", "b"]
    assert sorted(c.departures) == ["a", "b", "d"]


def test_a_second_call_moves_nothing() -> None:
    c = chain(("a", "b"))
    for name in "aab":
        c.call(name)
    assert c.arrivals == ["a", "b"]
    assert c.departures == ["a"]
