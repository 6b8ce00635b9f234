"""Compiled training steps: their gradients, their memory, and what wraps them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch._dynamo.backends.debugging import aot_eager
from torch.nn.parallel import DistributedDataParallel

import memplan
from memplan import BadInput, Facts, Target, Training
from memplan.facts import FULL, GIB, Gpu, Host, Machine
from memplan.planner import seated
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace.training import dry_run_of_training
from memplan.run import Run
from memplan.simulator.training import priced
from memplan.strategies import Compile, GradientCheckpointing
from tests.accuracy.steps import call_of, given, measured, step_of, traced
from tests.pipelines import build, inputs

LENGTHS = (64, 48, 32)
PLAN = "gradient_checkpointing:transformer,interval=2 + compile:transformer"
CALL: dict[str, Any] = {"height": 32, "width": 32, "max_sequence_length": 32}
TARGET = Target(vram=8, ram=8)
MACHINE = Machine(Gpu("a GPU", total=24 * GIB, free=24 * GIB), Host(total=64 * GIB, available=64 * GIB))


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """torch.compile with its backwards, but without kernels, which take minutes to write; its graphs are counted."""
    made: list[int] = []

    def backend(graph: Any, given: Any) -> Any:
        made.append(len(graph.graph.nodes))
        return aot_eager(graph, given)

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **settings: original(f, backend=backend, **settings))
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


def short(pipe: Any) -> Any:
    """The pipeline with one block of either kind, of which the second uses all that the first gives."""
    part = pipe.transformer
    part.transformer_blocks, part.single_transformer_blocks = (
        part.transformer_blocks[:1],
        part.single_transformer_blocks[:1],
    )
    return pipe


def cut(arguments: dict[str, Any], length: int) -> dict[str, Any]:
    """The same pictures with so many tokens."""
    return arguments | {
        "hidden_states": arguments["hidden_states"][:, :length],
        "img_ids": arguments["img_ids"][:length],
    }


def trained(part: Any, arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The gradients of a step."""
    step_of(part, arguments)()
    found = {name: weight.grad.clone() for name, weight in part.named_parameters() if weight.grad is not None}
    part.zero_grad(set_to_none=True)
    return found


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Whether they are the same gradients up to how sums are rounded."""
    alike = (torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in found)
    return found.keys() == expected.keys() and all(alike)


@pytest.mark.wide
@pytest.mark.parametrize("interval", [None, 2])
def test_gradients_of_every_length_are_those_uncompiled(compiler: list[int], interval: int | None) -> None:
    pipe = short(build("flux"))
    part, arguments = pipe.transformer.train(), given(pipe, inputs("flux"), 2)
    expected = {length: trained(part, cut(arguments, length)) for length in LENGTHS}
    if interval:
        GradientCheckpointing("transformer", interval).apply(pipe, "cpu")
    limit, undo = torch._dynamo.config.recompile_limit, Compile("transformer").apply(pipe, "cpu")
    assert torch._dynamo.config.recompile_limit == 64
    counts = []
    for length in LENGTHS:
        found = trained(part, cut(arguments, length))
        assert close(found, expected[length])
        counts.append(len(compiler))
    assert 0 < counts[0] <= counts[1] == counts[-1] < Compile("").limit  # from the second length on it varies
    undo()
    assert torch._dynamo.config.recompile_limit == limit


@pytest.mark.slow
def test_a_plan_is_applied_before_the_wrapper_and_trains(compiler: list[int], tmp_path: Path) -> None:
    pipe = short(build("flux"))
    arguments, limit = given(pipe, inputs("flux"), 2), torch._dynamo.config.recompile_limit
    settings: dict[str, Any] = {"target": TARGET, "device": "cpu", "train": Training("full", batch=2), "force": True}
    gradients = trained(pipe.transformer.train(), arguments)
    done = memplan.auto_optimize(pipe, PLAN, **settings, **CALL)
    assert [type(s).__name__ for s in done.strategies] == ["GradientCheckpointing", "OnGpu", "Compile"]
    expected = next(pipe.transformer.parameters()).clone()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(pipe.transformer.train())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step_of(model, arguments)()
        assert close({name: w.grad for name, w in pipe.transformer.named_parameters() if w.grad is not None}, gradients)
        optimizer.step()
        assert compiler
        assert not torch.equal(next(pipe.transformer.parameters()), expected)
        done.undo()
        assert torch._dynamo.config.recompile_limit == limit
        assert not any(module._compiled_call_impl for module in pipe.transformer.modules())
        pipe.transformer = model
        with pytest.raises(BadInput, match="transformer is wrapped in DistributedDataParallel already: apply the plan"):
            memplan.auto_optimize(pipe, PLAN, **settings, **CALL)
    finally:
        torch.distributed.destroy_process_group()


# ---- prices ----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def facts() -> Facts:
    """Of a step of all weights, twice, with the kernels of this CPU."""
    twin = open_pipeline(build("flux"))
    training = Training(FULL, batch=2, accumulate=2)
    trace = dry_run_of_training(twin, inputs("flux"), training, "cpu")
    model = measure(twin.pipe)
    return Facts(MACHINE, replace(model, components=(model.component("transformer"),)), trace, training)


@pytest.mark.slow
def test_beside_gradients_come_those_of_the_largest_module() -> None:
    known = facts()
    plain, compiled, whole = (
        priced(seated(known, chosen).run, known.training or Training()).peaks
        for chosen in ([], [Compile("transformer")], [Compile("transformer", "whole")])
    )
    regions = known.model.component("transformer").regions
    trained = known.trace.trained
    of_block = max(sum(w.nbytes for w in trained if w.name.startswith(f"{path}.")) for path in regions)
    more = {"blocks": of_block, "whole": sum(w.nbytes for w in trained)}
    for name, peaks in (("blocks", compiled), ("whole", whole)):
        grown = [two.activations - one.activations for one, two in zip(plain, peaks, strict=True)]
        assert grown == [0, more[name], 0, 0]
        assert peaks[1].memory.allocated - plain[1].memory.allocated == more[name]


@pytest.mark.slow
def test_what_a_step_cannot_have_compiled_is_refused() -> None:
    known, run = facts(), Run(facts())
    checkpointed = GradientCheckpointing("transformer", 2).redraw(run)
    assert "leave mode out" in (Compile("transformer", mode="reduce-overhead").refuses(run) or "")
    assert "set region=blocks" in (Compile("transformer", "whole").refuses(checkpointed) or "")
    assert Compile("transformer", "whole").refuses(run) is None
    assert Compile("transformer").refuses(checkpointed) is None
    dropped = {one.what: one.reason for one in memplan.planner.recommend(known, [Compile]).dropped}
    assert "name compile" in dropped["compile:transformer"]


@pytest.mark.wide
@pytest.mark.parametrize(("kind", "interval"), [("full", None), ("lora", 2)])
def test_kernels_of_inductor_hold_no_more_than_uncompiled(kind: str, interval: int | None) -> None:
    training = Training(kind, batch=16, rank=4, accumulate=2)
    trace, made = traced("wan", training), Compile("transformer")
    real = measured("wan", training, interval, then=lambda pipe: made.apply(pipe, "cpu"))
    of_all = sum(weight.nbytes for weight in trace.trained)
    first, later = (call_of(trace, interval, number) for number in (0, 1))
    assert 0.5 * first.activations < real[0] <= 1.01 * first.activations
    assert real[1] <= 1.01 * (later.activations - later.base + of_all)
