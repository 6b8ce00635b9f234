import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers.utils import import_utils

from memplan.errors import BadInput
from memplan.facts import Call, Trace
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import SHOWN, dry_run, phase, show
from tests.pipelines import FAMILIES, build, inputs
from tests.some import some

OWN_CODE = ""


def traced(family: str, **changes: Any) -> Trace:
    return dry_run(open_pipeline(build(family)), {**inputs(family), **changes})


def order(trace: Trace) -> list[tuple[str, str, int]]:
    """Component, method and repetitions of each step but the pipeline's own."""
    steps = ((trace.calls[step.call], step.repeat) for step in trace.timeline)
    return [(call.component, call.method, repeat) for call, repeat in steps if call.component]


@pytest.fixture(scope="module")
def flux() -> Trace:
    return traced("flux")


# ---- the timeline ----------------------------------------------------------------------------------------------------
def test_calls_come_in_the_order_of_the_pipeline(flux: Trace) -> None:
    assert order(flux) == [
        ("text_encoder", "forward", 1),
        ("text_encoder_2", "forward", 1),
        ("transformer", "forward", 2),
        ("vae", "decode", 1),
    ]


def test_every_step_is_traced_once_and_counted() -> None:
    trace = traced("flux", num_inference_steps=28)
    assert ("transformer", "forward", 28) in order(trace)
    assert len([call for call in trace.calls if call.component == "transformer"]) == 1


def test_progress_names_each_component_before_it_is_traced() -> None:
    said: list[str] = []
    twin = open_pipeline(build("flux"))
    embedder = twin.components()["transformer"].get_submodule("x_embedder")
    embedder.register_forward_pre_hook(lambda module, args: said.append("the transformer runs"))
    dry_run(twin, inputs("flux"), progress=said.append)
    assert said == [
        "dry run: text_encoder",
        "dry run: text_encoder_2",
        "dry run: transformer",
        "the transformer runs",
        "dry run: vae",
    ]


def test_progress_names_post_processing_too() -> None:
    said: list[str] = []
    dry_run(open_pipeline(build("wan")), {**inputs("wan"), "output_type": "pil"}, progress=said.append)
    assert said[-1] == "dry run: post-processing"


def test_two_experts_take_turns() -> None:
    names = [name for name, _, _ in order(traced("wan22", num_inference_steps=8))]
    assert names.index("transformer") < names.index("transformer_2") < names.index("vae")


def test_the_pipelines_own_code_is_between_the_calls(flux: Trace) -> None:
    names = [flux.calls[step.call].component for step in flux.timeline]
    assert names[0] == OWN_CODE
    assert names.count(OWN_CODE) >= 4
    assert all(OWN_CODE in pair for pair in pairwise(names) if "vae" in pair)


def test_phases_follow_one_another(flux: Trace) -> None:
    phases = list(dict.fromkeys(flux.calls[step.call].phase for step in flux.timeline))
    assert phases == ["preparing", "text encoding", "denoising", "decoding", "post-processing"]


@pytest.mark.parametrize("family", some(FAMILIES, "flux", "sdxl"))
def test_modules_are_entered_and_left_in_pairs(family: str) -> None:
    for call in traced(family).calls:
        opened: list[int] = []
        for segment in call.segments:
            opened.extend(segment.enters)
            for module in segment.leaves:
                assert opened.pop() == module
            assert segment.peak >= segment.live
            assert segment.peak >= 0
        assert not opened


@pytest.mark.parametrize("family", ["lumina2", "mochi", pytest.param("hunyuan_video15", marks=pytest.mark.slow)])
def test_code_that_looks_at_masks_needs_no_assumption(family: str) -> None:
    assert traced(family).assumptions == ()


@pytest.mark.parametrize(("family", "tokens"), [("lumina2", 256), ("mochi", 32)])
def test_a_longer_prompt_costs_more_where_masks_are_looked_at(family: str, tokens: int) -> None:
    traces = [traced(family, prompt="a dog" * words, max_sequence_length=tokens) for words in (1, 4)]
    short, long = (next(c for c in t.calls if c.component == "transformer").flops for t in traces)
    assert short < long


def test_a_prompt_without_padding_is_encoded_without_a_mask() -> None:
    """transformers would make one for every fake tensor that it sees."""
    twin, masks, known = open_pipeline(build("qwenimage")), list[Any](), import_utils.is_fake_tensor
    attention = twin.pipe.text_encoder.model.language_model.layers[0].self_attn
    attention.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    dry_run(twin, inputs("qwenimage"))
    assert masks == [None, None]
    assert import_utils.is_fake_tensor is known


# ---- what a call holds -----------------------------------------------------------------------------------------------
def test_a_larger_picture_needs_more_and_a_longer_run_does_not(flux: Trace) -> None:
    def decode(trace: Trace) -> Call:
        return next(call for call in trace.calls if call.method == "decode")

    larger = traced("flux", height=64, width=64)
    assert decode(larger).peak_segment.peak > 3 * decode(flux).peak_segment.peak
    longer = traced("flux", num_inference_steps=9)
    assert decode(longer).peak_segment.peak == decode(flux).peak_segment.peak


def test_a_tensor_takes_whole_units_on_a_cuda_device_only() -> None:
    twin = open_pipeline(build("flux"))
    cuda, cpu = (dry_run(twin, inputs("flux"), device=device) for device in ("cuda", "cpu"))
    assert all(s.live % 512 == 0 for call in cuda.calls for s in call.segments)
    assert any(s.live % 512 for call in cpu.calls for s in call.segments)
    assert (cuda.device, cpu.device) == ("cuda", "cpu")


def test_a_component_that_is_cast_by_the_pipeline_is_counted_once() -> None:
    """SDXL in half precision decodes in float32: the cast VAE replaces the stored one."""
    pipe = build("sdxl", dtype=torch.float16)
    pipe.vae.register_to_config(force_upcast=True)
    trace = dry_run(open_pipeline(pipe), inputs("sdxl"))
    stored = sum(t.nbytes for t in (*pipe.vae.parameters(), *pipe.vae.buffers()))
    bases = {call.component: call.base for call in trace.calls}
    assert stored * 0.9 < bases["vae"] - bases["unet"] < stored * 1.6


def test_two_dry_runs_are_equal() -> None:
    first, second = (dataclasses.asdict(traced("sd15")) for _ in range(2))
    assert first == second


def test_tiles_are_an_alternative_where_there_are_several() -> None:
    small = traced("flux")
    large = traced("flux", height=128, width=128)
    assert not any("tiled" in call.variant for call in small.alternatives)
    (tiled,) = (call for call in large.alternatives if call.variant == ("tiled",))
    decode = next(call for call in large.calls if call.method == "decode")
    assert large.alternative(decode, frozenset({"tiled"})) is tiled
    assert tiled.peak_segment.peak < decode.peak_segment.peak


# ---- what is left behind ---------------------------------------------------------------------------------------------
def anatomy(twin: Twin) -> list[tuple[str, str, list[str], int]]:
    """Attributes and number of hooks of every module."""
    return [
        (name, path, sorted(vars(m)), len(m._forward_hooks) + len(m._forward_pre_hooks))
        for name, part in twin.components().items()
        for path, m in part.named_modules()
    ]


def test_the_twin_is_as_it_was() -> None:
    twin = open_pipeline(build("ltx"))
    before, processor = anatomy(twin), twin.pipe.video_processor
    dry_run(twin, inputs("ltx"))
    assert [part for part in anatomy(twin) if part not in before] == [
        ("transformer", "", sorted({*before_of(before), "_diffusers_hook"}), 0)  # the pipeline's own cache_context()
    ]
    assert twin.pipe.video_processor is processor


def before_of(anatomies: list[tuple[str, str, list[str], int]]) -> list[str]:
    return next(names for name, path, names, _ in anatomies if (name, path) == ("transformer", ""))


def test_the_twin_is_as_it_was_after_a_refusal() -> None:
    twin = open_pipeline(build("flux"))
    before = anatomy(twin)
    with pytest.raises(BadInput):
        dry_run(twin, {**inputs("flux"), "callback_on_step_end_tensor_inputs": ["nothing"]})
    assert anatomy(twin) == before


def test_the_pipeline_itself_is_not_touched() -> None:
    pipe = build("sd15")
    weights = {name: t.clone() for name, t in pipe.unet.state_dict().items()}
    dry_run(open_pipeline(pipe), inputs("sd15"))
    assert all(torch.equal(t, weights[name]) for name, t in pipe.unet.state_dict().items())
    assert "forward" not in vars(pipe.unet)


# ---- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": 7}, "has to be of type"),
        ({"no_such_argument": 1}, "no_such_argument"),
        ({"height": 100, "width": 100, "family": "sd15"}, "divisible by 8"),
    ],
)
def test_the_pipelines_own_words_are_kept(change: dict[str, Any], words: str) -> None:
    family = change.pop("family", "flux")
    with pytest.raises(BadInput, match=words) as raised:
        traced(family, **change)
    assert "refuses this call" in str(raised.value)


# ---- words -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("component", "method", "expected"),
    [
        (OWN_CODE, "", "preparing"),
        (OWN_CODE, "postprocess_video", "post-processing"),
        ("vae", "decode", "decoding"),
        ("vae", "encode", "image encoding"),
        ("safety_checker", "forward", "safety check"),
        ("connectors", "forward", "text encoding"),
        ("vocoder", "forward", "decoding"),
        ("text_encoder", "forward", "text encoding"),
        ("transformer", "forward", "denoising"),
    ],
)
def test_a_call_has_the_phase_that_people_expect(component: str, method: str, expected: str) -> None:
    parts = build("flux").components
    assert phase(parts.get(component), component, method) == expected


def test_arguments_are_shown_short() -> None:
    assert show(torch.zeros(2, 3)) == "tensor(2, 3)"
    assert show(1024) == "1024"
    assert show("a" * 100) == "'" + "a" * 57 + "…'"
    assert show([0.5] * 100).endswith("…]")
    assert max(len(show(value)) for value in ("a" * 100, [1] * 100, {"a": "b" * 100})) == SHOWN
    assert show(torch.Generator()) == "Generator"
