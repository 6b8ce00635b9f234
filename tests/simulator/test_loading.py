"""Memory while a pipeline is loaded and a plan applied: worked out by hand, and against real loads."""

import gc
import sys
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from memplan.facts import MIB, Component, Facts, Group, Grouping, Machine, Model, Trace, Weight
from memplan.run import InGroups, OnCall, Run, Stored
from memplan.simulator import simulate
from memplan.simulator.formats import FORMATS
from memplan.simulator.host import LIBRARIES
from memplan.simulator.loading import loading
from memplan.strategies import STRATEGIES
from tests.accuracy.loads import CASES, Case, Saved
from tests.accuracy.measured import peak_of
from tests.faces import small

LAYER = Weight("a.weight", 1024 * 1024, "bfloat16", columns=1024)
PART = Component("part", "Part", "other", "bfloat16", tuple(replace(LAYER, name=f"{n}.weight") for n in "abc"))
INT8 = 1024 * (1024 + 5)
"""What one of its three layers takes in int8: a byte each, and five for each row."""
MAKING = 1024 * (8 * 1024 + 9)


def run_of(*parts: Component, kind: str = "cuda") -> Run:
    machine = small.machine(8, 32)
    assert machine.gpu is not None
    here = Machine(replace(machine.gpu, kind=kind), machine.host)
    return Run(Facts(here, Model("m", "M", parts), Trace(kind, (), ())))


def host(run: Run) -> int:
    return loading(run).host - LIBRARIES


# ---- by hand ---------------------------------------------------------------------------------------------------------
def test_mapped_weights_take_nothing() -> None:
    assert host(run_of(PART)) == 0


def test_those_of_another_dtype_are_held() -> None:
    assert host(run_of(replace(PART, mapped=False))) == PART.size


def test_results_are_held_until_they_are_placed() -> None:
    run = run_of(PART, replace(PART, name="other")).store("part", Stored("int8")).store("other", Stored("int8"))
    assert host(run) == 6 * INT8


def test_what_lives_on_the_device_goes_there_before_others_take_memory() -> None:
    """Whichever comes first in the pipeline: what is quantized waits in host memory until it is placed."""
    other = replace(PART, name="other")
    for parts in ((PART, other), (other, PART)):
        run = run_of(*parts).store("part", Stored("int8")).place("other", OnCall())
        assert host(run) == max(3 * INT8, PART.size)


def test_on_the_cpu_the_last_layer_is_made_beside_the_others() -> None:
    assert host(run_of(PART, kind="cpu").store("part", Stored("int8"))) == 2 * INT8 + MAKING


def test_an_original_goes_when_it_is_converted() -> None:
    run = run_of(replace(PART, mapped=False)).store("part", Stored("int8"))
    assert host(run) == PART.size + INT8


def test_unless_it_is_kept() -> None:
    run = run_of(replace(PART, mapped=False)).store("part", Stored("int8", original=True))
    assert host(run) == PART.size + 3 * INT8


def test_the_device_holds_one_layer_at_a_time() -> None:
    run = run_of(PART).store("part", Stored("int8")).place("part", OnCall())
    peak = loading(run)
    assert peak.memory.allocated == LAYER.nbytes + MAKING
    assert loading(run_of(PART, kind="cpu").store("part", Stored("int8"))).memory.allocated == 0


LEAVES = Grouping("leaf_level", None, tuple(Group(name, name, (i,)) for i, name in enumerate("abc")))
ODD = replace(LAYER, numel=1000 * 1024)
"""Its bytes are pinned as 2 MiB, the next power of two."""
STREAMED = replace(PART, weights=tuple(replace(ODD, name=f"{n}.weight") for n in "abc"), groupings=(LEAVES,))


def streamed(*parts: Component, low_cpu_mem: bool = False) -> Run:
    run = run_of(*parts)
    for part in parts:
        run = run.place(part.name, InGroups("leaf_level", stream=True, low_cpu_mem=low_cpu_mem))
    return run


def test_what_streams_pin_stays_pinned_while_the_next_component_is() -> None:
    """The second one has a layer beside its pinned copy."""
    assert host(streamed(STREAMED)) == (3 + 1) * 2 * MIB
    assert host(streamed(STREAMED, replace(STREAMED, name="other"))) == (3 + 3 + 1) * 2 * MIB


def test_with_low_cpu_mem_nothing_is_pinned_before_the_first_call() -> None:
    run = streamed(STREAMED, replace(STREAMED, name="other"), low_cpu_mem=True)
    assert host(run) == STREAMED.size
    assert simulate(run).host.peak > LIBRARIES + 2 * STREAMED.size


def test_originals_stay_beside_what_is_pinned_or_has_left() -> None:
    part = replace(STREAMED, mapped=False)
    run = streamed(part).store("part", Stored("int8", original=True))
    pins = 3 * (MIB + 4096 + 1024)  # the bytes of a layer, its scales and its zero points, rounded up
    assert host(run) == part.size + max(3 * 1000 * (1024 + 5), pins + pins // 3)
    other = replace(STREAMED, name="other")
    left = run_of(part, other).store("part", Stored("int8", original=True))
    left = left.place("other", InGroups("leaf_level", stream=True))
    assert host(left) == part.size + (3 + 1) * 2 * MIB


def test_what_bitsandbytes_has_in_8_bits_stays_there() -> None:
    row = 1024 * (1024 + 4)
    run = run_of(PART, replace(PART, name="other")).store("part", Stored("bnb int8")).store("other", Stored("bnb int8"))
    assert host(run) == 0
    kept = run.place("part", OnCall()).place("other", OnCall())
    assert loading(kept).memory.allocated == 5 * row + LAYER.nbytes + 2 * LAYER.numel + row


def test_then_what_lives_there() -> None:
    assert loading(run_of(*(replace(PART, name=f"{n}") for n in range(4)))).memory.allocated == 4 * PART.size


def test_the_bill_has_it_and_the_planner_counts_it() -> None:
    facts = small.facts()
    run = Run(facts).store("transformer", Stored("float8_e4m3fn"))
    bill = simulate(run)
    cast = facts.model.component("transformer").cast_size
    assert bill.phases[0] == bill.loading
    assert bill.host.peak == bill.phases[0].host == LIBRARIES + cast
    assert bill.host.steady == LIBRARIES


# ---- against real conversions ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("float8 dynamic", "int4")])
def test_a_conversion_on_the_cpu_takes_as_much(name: str, dtype: str) -> None:
    if name == "quanto int4" and dtype != "bfloat16":
        return  # it is refused
    weight = Weight("0.weight", 1024 * 512, dtype, columns=1024)
    measured = 0
    for _ in range(2):  # the first call makes tables that stay
        part = torch.nn.Sequential(torch.nn.Linear(1024, 512, bias=False, dtype=getattr(torch, dtype)))
        layer = part[0]
        gc.collect()  # what is freed in between would count against what is made
        held = [layer.weight]  # the original is not freed in between, as one that is mapped is not
        _, measured = peak_of(partial(strategy(name).convert, part, "0", layer, "cpu"))
        assert held
    assert FORMATS[name].making(weight, True) == pytest.approx(measured, rel=0.02)


def strategy(name: str) -> Any:
    """The strategy that stores in that format."""
    kinds: list[Any] = [cls for cls in STRATEGIES if hasattr(cls, "format")]
    settings: list[dict[str, Any]] = [
        {},
        {"double_quant": False},
        {"quant_type": "fp4"},
        {"quant_type": "fp4", "double_quant": False},
        {"weights": "float8"},
        {"weights": "int4"},
        {"weights": "nvfp4"},
    ]
    every = (kind("part", **given) for kind in kinds for given in settings if set(given) <= set(vars(kind)))
    return next(one for one in every if one.format == name)


# ---- against real loads ----------------------------------------------------------------------------------------------
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
CLOSE, NOISE = 0.05, 32 * MIB
"""How far a prediction may be off, and what libraries keep while they load."""


def assert_as_predicted(case: Case, folder: Path) -> None:
    expected = case.predicted(folder)
    anonymous, resident = case.measured(folder)
    assert anonymous == pytest.approx(expected, rel=CLOSE)
    files = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert resident <= (1 + CLOSE) * expected + files + NOISE  # what maps files goes where others need memory


@needs_proc
@pytest.mark.slow
def test_a_small_pipeline_takes_what_was_predicted(tmp_path: Path) -> None:
    """Stored in another dtype and in several files, cast as it is loaded, then converted."""
    case = Case(Saved("float32", 1024, "100MB"), "bfloat16", "int8_weight_only:text_encoder_2,transformer")
    assert_as_predicted(case, case.saved.write(tmp_path))


@pytest.fixture(scope="module", params=dict.fromkeys(case.saved for case in CASES), ids=str)
def saved(request: pytest.FixtureRequest) -> Generator[tuple[Saved, Path]]:
    """2 GiB of weights."""
    with TemporaryDirectory() as folder:
        yield request.param, request.param.write(Path(folder))


@needs_proc
@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_large_pipeline_takes_what_was_predicted(case: Case, saved: tuple[Saved, Path]) -> None:
    kind, folder = saved
    if case.saved == kind:
        assert_as_predicted(case, folder)
