"""What only torch.compile knows: what it refuses, what it makes of real modules, and the way back."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from memplan.catalogue.gpu_names import find_card
from memplan.errors import BadInput
from memplan.facts import Facts, Gpu
from memplan.planner import seated
from memplan.run import Compiled, Run
from memplan.strategies import (
    Bnb4bit,
    Bnb8bit,
    Compile,
    GroupOffload,
    LayerwiseCasting,
    ModelOffload,
    OnCpu,
    SequentialOffload,
    SetAside,
)
from memplan.strategy import Strategy, in_order
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.test_strategy_laws import attributes, picture

BLOCKS = Compile("transformer")
GRAPHED = Compile("transformer", mode="reduce-overhead")
ROUNDING = 1e-4
"""How far pictures of the small pipelines, between 0 and 1, may differ: fused kernels round at other places."""


@pytest.fixture(scope="module")
def flux() -> Facts:
    facts = facts_of(build("flux"))
    return replace(facts, machine=replace(facts.machine, packages=(*facts.machine.packages, ("triton", "3.5"))))


def refusal(facts: Facts, strategy: Strategy, *others: Strategy) -> str:
    """What `strategy` says of a run in which the `others` are seated."""
    run = Run(facts)
    for other in in_order(others):
        run = other.redraw(run)
    return strategy.refuses(run) or ""


def whole(facts: Facts, cls: Any) -> Any:
    return cls(tuple(c.name for c in facts.model.components))


# ---- whom it refuses -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        (BLOCKS, ""),
        (Compile("transformer", "whole"), ""),
        (Compile("transformer", "all"), "region is one of blocks, whole, decoder"),
        (Compile("transformer", mode="fast"), "mode one of default, reduce-overhead"),
        (Compile("transformer", "decoder"), "does not run the decoder of transformer as a module"),
        (Compile("vae"), "AutoencoderKL names no repeated blocks to compile: set region=whole"),
        (Compile("vae", "whole"), "does not run the whole of vae as a module"),
        (Compile("text_encoder", "whole"), "compile is for models of diffusers, and CLIPTextModel is none"),
    ],
)
def test_refuses(flux: Facts, strategy: Compile, sentence: str) -> None:
    assert sentence in refusal(flux, strategy)
    assert bool(sentence) == bool(refusal(flux, strategy))


def test_refuses_hooks_and_formats_that_break_its_graph_at_every_layer(flux: Facts) -> None:
    casting = LayerwiseCasting("transformer")
    assert "makes the parameters of every layer anew" in refusal(flux, BLOCKS, casting)
    assert "outliers" in refusal(flux, BLOCKS, Bnb8bit("transformer"))
    assert refusal(flux, BLOCKS, Bnb4bit("transformer")) == ""
    assert "keep the compiler out" in refusal(flux, BLOCKS, GroupOffload("transformer"))
    assert "keep the compiler out" in refusal(flux, BLOCKS, whole(flux, SequentialOffload))
    assert refusal(flux, BLOCKS, GroupOffload("transformer", "block_level", 1)) == ""


def test_graphs_need_weights_that_stay(flux: Facts) -> None:
    assert refusal(flux, BLOCKS, whole(flux, ModelOffload)) == ""
    assert "weights must stay" in refusal(flux, GRAPHED, whole(flux, ModelOffload))
    assert "weights must stay" in refusal(flux, GRAPHED, GroupOffload("transformer", "block_level", 1))


def test_refuses_what_does_nothing_on_the_device(flux: Facts) -> None:
    assert "nothing on the device" in refusal(flux, BLOCKS, SetAside("transformer"))
    assert "nothing on the device" in refusal(flux, BLOCKS, OnCpu("transformer"))


def test_needs_a_card_that_triton_knows(flux: Facts) -> None:
    card = find_card("RTX 4090").gpu()  # of another machine, whose packages nobody knows

    def of(gpu: Gpu) -> str:
        return refusal(replace(flux, machine=replace(flux.machine, gpu=gpu, packages=())), BLOCKS)

    assert of(card) == of(replace(card, capability=(7, 0))) == of(replace(card, capability=None)) == ""
    assert "needs compute capability 7.0, and NVIDIA GeForce RTX 4090 has 6.1" in of(replace(card, capability=(6, 1)))
    assert "does not run on" in of(replace(card, kind="mps"))


@pytest.mark.parametrize(
    ("packages", "system", "sentence"),
    [
        ((("triton", "3.5"), ("cc", "/usr/bin/cc")), "Linux", ""),
        ((("cc", "/usr/bin/cc"),), "Linux", "pip install triton"),
        ((("cc", "cl.exe"),), "Windows", "pip install triton-windows"),
        ((("triton", "3.5"),), "Linux", "needs a C compiler"),
    ],
)
def test_a_card_that_is_here_needs_triton_and_a_compiler(
    flux: Facts, packages: Any, system: str, sentence: str
) -> None:
    machine = flux.machine
    assert machine.gpu is not None
    here = replace(
        machine, gpu=replace(machine.gpu, source="nvml"), packages=packages, host=replace(machine.host, system=system)
    )
    found = refusal(replace(flux, machine=here), BLOCKS)
    assert sentence in found
    assert bool(sentence) == bool(found)


def test_it_draws_the_modules_that_are_compiled(flux: Facts) -> None:
    plan = seated(flux, [GRAPHED])
    regions = flux.model.component("transformer").regions
    kinds = {path.partition(".")[0] for path in regions}
    assert kinds == {"transformer_blocks", "single_transformer_blocks"}
    assert len(regions) == len(set(regions)) > len(kinds)
    assert plan.run.compiled == {"transformer": Compiled(regions, graphs=True)}
    assert any("transformer: compiled code holds no more" in text for text in plan.assumptions)


def test_it_is_applied_after_what_moves_weights(flux: Facts) -> None:
    ordered = in_order([BLOCKS, GroupOffload("transformer", "block_level", 1), Bnb4bit("transformer")])
    assert [type(s) for s in ordered] == [Bnb4bit, GroupOffload, Compile]


# ---- real modules ----------------------------------------------------------------------------------------------------
@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """All of torch.compile but the kernels, which take minutes to write; the graphs that it makes are counted."""
    made: list[int] = []

    def backend(graph: Any, given: Any) -> Any:
        made.append(len(graph.graph.nodes))
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **settings: original(f, backend=backend, **settings))
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "strategy"),
    [
        ("flux", BLOCKS),
        pytest.param("flux", Compile("transformer", "whole"), marks=pytest.mark.wide),
        pytest.param("sdxl", Compile("unet"), marks=pytest.mark.wide),
        pytest.param("sdxl", Compile("unet", "whole"), marks=pytest.mark.wide),
        pytest.param("sdxl", Compile("vae", "decoder"), marks=pytest.mark.wide),
    ],
)
def test_undo_takes_everything_back(compiler: list[int], family: str, strategy: Compile) -> None:
    pipe = build(family)
    limit, expected, before = torch._dynamo.config.recompile_limit, picture(pipe, family), attributes(pipe)
    undo = strategy.apply(pipe, "cpu")
    assert torch._dynamo.config.recompile_limit == max(limit, strategy.limit)
    assert (picture(pipe, family) - expected).abs().max() < ROUNDING
    assert compiler
    undo()
    assert attributes(pipe) == before
    assert torch._dynamo.config.recompile_limit == limit
    assert torch.equal(picture(pipe, family), expected)


def test_the_code_does_what_apply_does(compiler: list[int]) -> None:
    for strategy in (BLOCKS, Compile("vae", "decoder")):
        applied, typed = build("flux"), build("flux")
        strategy.apply(applied, "cpu")
        exec("\n".join(strategy.code("cpu")), {"pipe": typed})
        assert _compiled(applied) == _compiled(typed) != _compiled(build("flux"))


def test_the_code_gives_the_settings_that_are_not_torchs_own() -> None:
    strategy = Compile("transformer", mode="max-autotune", dynamic=True)
    assert strategy.code()[-1] == "pipe.transformer.compile_repeated_blocks(mode='max-autotune', dynamic=True)"


def test_what_is_compiled_already_is_left_alone(compiler: list[int]) -> None:
    pipe = build("flux")
    undo = BLOCKS.apply(pipe, "cpu")
    with pytest.raises(BadInput, match="transformer is compiled already"):
        BLOCKS.apply(pipe, "cpu")
    undo()
    assert not _compiled(pipe)


@pytest.mark.wide
def test_equal_blocks_are_one_graph_and_another_size_is_compiled_once_for_all(compiler: list[int]) -> None:
    pipe = build("flux")
    undo = BLOCKS.apply(pipe, "cpu")
    picture(pipe, "flux")
    first = len(compiler)
    assert first == 3  # of two kinds of block; the first single one is given its input in other strides
    counts = []
    for size in (32, 48, 64, 96):
        pipe(**{**inputs("flux"), "height": size, "width": size})
        counts.append(len(compiler))
    assert counts[-1] == counts[1] <= 3 * first < BLOCKS.limit
    undo()


@pytest.mark.wide
def test_kernels_of_inductor_make_the_same_picture() -> None:
    pipe = build("flux")
    expected = picture(pipe, "flux")
    undo = BLOCKS.apply(pipe, "cpu")
    assert (picture(pipe, "flux") - expected).abs().max() < ROUNDING
    undo()
    assert torch.equal(picture(pipe, "flux"), expected)


def _compiled(pipe: Any) -> list[str]:
    parts = ((name, part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module))
    return [f"{name}.{path}" for name, part in parts for path, m in part.named_modules() if m._compiled_call_impl]
