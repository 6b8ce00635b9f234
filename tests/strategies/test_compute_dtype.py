"""What only another compute dtype knows: which layers it casts, what they hold, and the way back."""

from typing import Any

import pytest
import torch

import memplan
from memplan.applier import apply
from memplan.errors import BadInput
from memplan.facts import COMPUTED, GIB
from memplan.planner import recommend
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.modules import as_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import switches
from memplan.run import Run
from memplan.simulator.weights import originals, total
from memplan.strategies import ComputeDtype, GroupOffload, OnGpu, SequentialOffload
from memplan.strategy import Strategy
from tests.accuracy.measured import component_peaks
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some
from tests.test_strategy_laws import picture

CARD = memplan.Target(vram=8, ram=32)
DENOISER = {"sdxl": "unet"}
LOADED_AND_CAST = {"sdxl": (torch.bfloat16, "float32")}
"""oneDNN's half-precision convolutions hold float32 copies of the weights on a CPU, so a U-Net's are in float32."""


class Backbone(torch.nn.Module):
    """A denoiser of no library that casts its torso itself, and its activations by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = torch.nn.Linear(8, 64), torch.nn.Linear(64, 8)
        self.torso = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))
        self.dtype = torch.float32

    def convert_to(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.torso.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x).to(self.dtype)
        for layer in self.torso:
            h = layer(h)
        return self.leave(h.to(x.dtype))


class Plain(Backbone):
    """The same without a way to cast itself."""

    convert_to = None  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        for layer in self.torso:
            h = layer(h)
        return self.leave(h)


def dtypes(part: Any) -> dict[str, torch.dtype]:
    """The dtype of each parameter."""
    return {name: weight.dtype for name, weight in part.named_parameters()}


def latents(family: str) -> dict[str, Any]:
    """A call without a decode."""
    return inputs(family) | {"output_type": "latent"}


def state(part: Any) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: weight.detach().clone() for name, weight in part.state_dict().items()}


# ---- what is cast ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("family", "kept", "cast"),
    [
        ("flux", ("x_embedder", "context_embedder", "time_text_embed", "norm_q", "proj_out"), ("to_q", "norm1.linear")),
        ("wan", ("patch_embedding", "condition_embedder", "norm_q", "norm2"), ("ffn.net", "to_out")),
        ("sdxl", ("conv_in", "conv_out", "time_embedding", "norm1", "conv_norm_out"), ("mid_block", "conv1", "to_k")),
    ],
)
def test_the_torso_is_cast_and_its_edges_are_not(family: str, kept: tuple[str, ...], cast: tuple[str, ...]) -> None:
    pipe, name = build(family), DENOISER.get(family, "transformer")
    ComputeDtype(name, "bfloat16").apply(pipe, "cpu")
    found = dtypes(getattr(pipe, name))
    for path, dtype in found.items():
        if path.partition(".")[0] in kept or any(f".{word}.weight" in path for word in kept if word.startswith("norm")):
            assert dtype == torch.float32, path
    for word in cast:
        assert any(word in path and dtype == torch.bfloat16 for path, dtype in found.items()), word
    assert all(dtype == torch.float32 for dtype in dtypes(pipe.vae).values())


@pytest.mark.slow
@pytest.mark.parametrize("family", some(("flux", "wan", "sd3", "sdxl"), "flux", "sdxl"))
def test_the_peak_is_that_of_a_real_run(family: str) -> None:
    """Weights and activations as the dry run has them, and the pipeline as it was after the way back."""
    name, (loaded, dtype) = (
        DENOISER.get(family, "transformer"),
        LOADED_AND_CAST.get(family, (torch.float32, "bfloat16")),
    )
    pipe = build(family, dtype=loaded)
    part, before = getattr(pipe, name), state(getattr(pipe, name))
    asked = switches([f"compute_dtype:{name},dtype={dtype}"])
    trace = dry_run(open_pipeline(pipe), latents(family), device="cpu", switches=asked)
    plain = next(call for call in trace.calls if call.component == name)
    cast, expected = trace.alternative(plain, frozenset(asked)), pipe(**latents(family))[0]
    forward, undo = part.forward, ComputeDtype(name, dtype, keep_original=True).apply(pipe, "cpu")
    assert dict(cast.recast) == {key: dtype for key, kind in dtypes(part).items() if kind != before[key].dtype}
    measured = component_peaks(pipe, latents(family))[name, "forward"]
    assert cast.peak_segment.peak == pytest.approx(measured, rel=0.01)
    assert cast.peak_segment.peak != plain.peak_segment.peak
    part.forward = forward  # component_peaks() watches it
    undo()
    after = part.state_dict()
    assert all(torch.equal(after[key], weight) and after[key].dtype == weight.dtype for key, weight in before.items())
    assert torch.equal(pipe(**latents(family))[0], expected)


def test_the_bill_has_the_weights_in_their_dtype() -> None:
    facts = facts_of(build("flux"))
    strategy = ComputeDtype("transformer", "bfloat16", keep_original=True)
    run, component = strategy.redraw(Run(facts)), facts.model.component("transformer")
    cast = dict(facts.trace.recast("transformer", f"{COMPUTED}:bfloat16"))
    halved = sum(w.nbytes for w in component.weights if w.name in cast)
    assert 0 < halved < component.size
    assert total(component, run.stored("transformer")) == component.size - halved // 2
    assert originals(component, run.stored("transformer")) == halved
    assert strategy.final is None
    assert ComputeDtype("transformer").final


# ---- models of no library -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Backbone, Plain])
def test_a_model_of_no_library(kind: type[Backbone]) -> None:
    pipe = as_pipeline(kind())
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    trace = dry_run(open_pipeline(pipe), {"x": x}, device="cpu", switches=switches(["compute_dtype:model"]))
    assert dict(trace.recast("model", f"{COMPUTED}:float16")) == {
        f"torso.{i}.{n}": "float16" for i in range(3) for n in ("weight", "bias")
    }
    before, expected = state(pipe.model), pipe.model(x)
    undo = ComputeDtype("model", keep_original=True).apply(pipe, "cpu")
    made = pipe.model(x)
    assert made.dtype == torch.float32
    assert not torch.equal(made, expected)
    assert torch.allclose(made, expected, atol=1e-2)
    assert pipe.model.dtype == (torch.float16 if kind is Backbone else torch.float32)
    undo()
    assert pipe.model.dtype == torch.float32
    assert torch.equal(pipe.model(x), expected)
    assert all(torch.equal(weight, before[name]) for name, weight in pipe.model.state_dict().items())


def test_a_model_without_blocks_is_refused_before_anything_is_changed() -> None:
    pipe = as_pipeline(torch.nn.Linear(8, 8))
    with pytest.raises(BadInput, match="knows no torso"):
        ComputeDtype("model").apply(pipe, "cpu")


# ---- who may --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("family", "strategy", "sentence"),
    [
        ("flux", ComputeDtype("transformer", "int8"), "dtype is bfloat16, float16 or float32, not int8"),
        ("flux", ComputeDtype("vae"), "vae is none of them"),
        ("flux", ComputeDtype("text_encoder"), "text_encoder is none of them"),
        ("flux", ComputeDtype("transformer", "float32"), "compute_dtype needs a dry run in float32"),
        ("wan22", ComputeDtype("transformer"), "transformer and transformer_2 take turns: add also=transformer_2"),
    ],
)
def test_refuses(family: str, strategy: ComputeDtype, sentence: str) -> None:
    assert sentence in (strategy.refuses(Run(facts_of(build(family)))) or "")


def test_both_experts_are_cast_alike() -> None:
    pipe = build("wan22")
    facts = facts_of(pipe)
    (strategy,) = ComputeDtype.variants(facts)
    assert str(strategy) == "compute_dtype:transformer,dtype=bfloat16,also=transformer_2"
    assert strategy.refuses(Run(facts)) is None
    strategy.apply(pipe, "cpu")
    assert dtypes(pipe.transformer) == dtypes(pipe.transformer_2)
    assert torch.isfinite(picture(pipe, "wan22")).all()


def test_it_is_priced_for_those_who_name_it() -> None:
    pipe, call = build("flux", dtype=torch.bfloat16), {k: v for k, v in inputs("flux").items() if k != "generator"}
    named = "compute_dtype:transformer,dtype=float16 + group_offload:text_encoder"
    plan = memplan.price(pipe, [named], target=CARD, **call)
    assert plan.fits
    assert plan.bill.loss.word == "near-lossless"


def test_it_is_never_picked() -> None:
    found = recommend(facts_of(build("flux")), [ComputeDtype, OnGpu])
    assert not any(s.name == "compute_dtype" for plan in found.front for s in plan.strategies)
    (left,) = found.dropped
    assert left.reason == "pictures of one seed change with it; to have it all the same, name compute_dtype"


@pytest.mark.wide
def test_a_pipeline_in_two_dtypes_can_be_planned_anew() -> None:
    pipe, call = build("flux"), {k: v for k, v in inputs("flux").items() if k != "generator"}
    ComputeDtype("transformer", "bfloat16").apply(pipe, "cpu")
    plan = memplan.price(pipe, [], target=CARD, **call)
    assert 0 < plan.bill.peak.memory.required < GIB


@pytest.mark.parametrize(
    "placement", [GroupOffload("transformer"), SequentialOffload(("transformer",))], ids=lambda s: s.name
)
def test_layers_in_several_dtypes_can_be_offloaded(placement: Strategy) -> None:
    pipe = build("flux")
    cast = ComputeDtype("transformer", "bfloat16", keep_original=True)
    undo = cast.apply(pipe, "cpu")
    expected = picture(pipe, "flux")
    undo()
    whole = picture(pipe, "flux")
    with apply([placement, cast], pipe, "cpu"):
        assert torch.equal(picture(pipe, "flux"), expected)
    assert torch.equal(picture(pipe, "flux"), whole)
