"""Each bundled model has exactly its publisher's parameters, in the published dtypes, and its real call runs."""

import re
from typing import Any

import pytest
import torch

from memplan.catalogue.models import find, names
from memplan.errors import BadInput
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources.bundled import bundled_twin
from memplan.probes.sources.skeleton import fake_module
from memplan.probes.sources.tokenizers import stand_in_tokenizer
from memplan.probes.trace import dry_run

GIB = 1024**3
PROMPT = "An astronaut riding a green horse through a field of sunflowers, in the style of a woodcut"
SHORT = {"num_inference_steps": 2, "height": 256, "width": 256}
"""Two steps: the experts of Wan 2.2 take one each."""
FRAMES = {"num_frames": 9, "video_length": 16}
"""What pipelines call the length of a video, and one that each of them accepts: Latte has positions for 16."""
QUICK = ("sd1.5", "flux.1-dev")
"""Models that every run of the tests builds; the others take seconds each."""
SLOW = ("sdxl", "wan2.1-t2v-1.3b")
"""Models that stand for the others, which are left to the wide tests."""
NEVER_CALLED = {"animatediff": {"motion_adapter"}}
"""Components that a pipeline keeps and does not call: this one's weights are copied into the UNet."""
BYTES = {"MB": 10**6, "GB": 10**9, "GiB": GIB}
HEADER = 10**6
"""More than the header of any of these safetensors files, in bytes."""


def marked(name: str) -> Any:
    marks = [] if name in QUICK else [pytest.mark.slow]
    return pytest.param(name, marks=marks if name in (*QUICK, *SLOW) else [*marks, pytest.mark.wide])


@pytest.fixture(scope="module", params=[marked(name) for name in names()])
def twin(request: pytest.FixtureRequest) -> Twin:
    return bundled_twin(request.param)


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


def test_weights_are_as_many_as_published(twin: Twin) -> None:
    for key, module in twin.components().items():
        part = find(twin.name).components[key]
        if part.published_parameters:
            assert sum(p.numel() for p in module.parameters()) == part.published_parameters, key
        elif part.published_files:
            size, rounding, itemsize = published(part.published_files)
            assert abs(stored_elements(module) * itemsize - size) <= rounding + HEADER, key


@pytest.mark.slow
@pytest.mark.parametrize("name", [marked(name) for name in names() if find(name).published_files])
def test_weights_known_only_together_are_as_many_as_published(name: str) -> None:
    model, twin = find(name), bundled_twin(name)
    size, rounding, _ = published(model.published_files)
    files = {key: part.published_files or model.published_files for key, part in model.components.items()}
    ours = sum(stored_elements(module) * published(files[key])[2] for key, module in twin.components().items())
    assert abs(ours - size) <= rounding + HEADER


def published(files: str) -> tuple[float, float, int]:
    """Size of the published files in bytes, how far their rounding may be off, and the bytes of an element in them."""
    found = re.findall(r"(\d+(?:\.(\d+))?) (MB|GB|GiB)", files)
    size = sum(float(number) * BYTES[unit] for number, _, unit in found)
    rounding = sum(0.5 * BYTES[unit] / 10 ** len(decimals) for _, decimals, unit in found)
    return size, rounding, getattr(torch, files.rpartition(" ")[-1]).itemsize


def stored_elements(module: torch.nn.Module) -> int:
    """Elements in the file of `module`: parameters and the buffers that are saved, tied tensors once."""
    return sum({id(tensor): tensor.numel() for tensor in module.state_dict(keep_vars=True).values()}.values())


def test_every_component_is_there(twin: Twin) -> None:
    model = find(twin.name)
    assert twin.source == f"bundled {model.name}"
    assert type(twin.pipe).__name__ == model.pipeline
    for key, part in model.components.items():
        component = getattr(twin.pipe, key)
        assert part.library == "memplan" or type(component).__name__.removesuffix("Pil") == part.class_name


@pytest.mark.slow
def test_the_call_runs(twin: Twin) -> None:
    taken = type(twin.pipe).__call__.__annotations__
    length = {name: frames for name, frames in FRAMES.items() if name in taken}
    trace = dry_run(twin, {"prompt": PROMPT, **twin.call, **SHORT, **length})
    reached = {c.component for c in trace.calls if c.component}
    assert reached == set(twin.components()) - NEVER_CALLED.get(twin.name, set())


def test_dtypes_are_the_published_ones() -> None:
    flux, wan, sd = (bundled_twin(name).components() for name in ("flux", "wan", "sd1.5"))
    assert {frozenset(dtypes(m)) for m in flux.values()} == {frozenset({torch.bfloat16})}
    assert {frozenset(dtypes(m)) for m in sd.values()} == {frozenset({torch.float16})}
    assert dtypes(wan["vae"]) == {torch.float32}
    assert dtypes(wan["text_encoder"]) == {torch.bfloat16}


def test_what_the_library_keeps_in_float32_stays_so() -> None:
    transformer = bundled_twin("wan").pipe.transformer
    assert transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    encoder = bundled_twin("flux", "float16").pipe.text_encoder_2
    feed_forward = encoder.encoder.block[0].layer[1].DenseReluDense
    assert (feed_forward.wo.weight.dtype, feed_forward.wi_0.weight.dtype) == (torch.float32, torch.float16)


def test_t5_is_8_87_gib() -> None:
    encoder = bundled_twin("flux").pipe.text_encoder_2
    assert sum(p.nbytes for p in encoder.parameters()) / GIB == pytest.approx(8.87, abs=0.005)


def test_a_dtype_goes_before_the_published_one() -> None:
    assert dtypes(bundled_twin("wan", "float16").pipe.vae) == {torch.float16}


def test_a_dtype_that_weights_are_not_loaded_in() -> None:
    with pytest.raises(BadInput, match=r"not loaded in dtype 'int8'\. Use one of float32, bfloat16, float16"):
        bundled_twin("sd1.5", "int8")


def test_the_transformer_runs_under_the_mode() -> None:
    from diffusers import FluxTransformer2DModel

    mode = fresh_mode()
    config = {**find("flux").components["transformer"].config, "num_layers": 1, "num_single_layers": 1}
    transformer = fake_module(FluxTransformer2DModel, config, torch.bfloat16, mode)
    with torch.no_grad(), mode:
        inputs = {
            "hidden_states": torch.zeros(1, 64, 64, dtype=torch.bfloat16),
            "encoder_hidden_states": torch.zeros(1, 512, 4096, dtype=torch.bfloat16),
            "pooled_projections": torch.zeros(1, 768, dtype=torch.bfloat16),
            "timestep": torch.zeros(1, dtype=torch.bfloat16),
            "guidance": torch.zeros(1),
            "img_ids": torch.zeros(64, 3),
            "txt_ids": torch.zeros(512, 3),
        }
        sample = transformer(**inputs).sample
    assert (sample.shape, sample.dtype) == ((1, 64, 64), torch.bfloat16)


# ---- stand-in tokenizers --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def clip() -> Any:
    return stand_in_tokenizer(find("sdxl").components["tokenizer"].config)


@pytest.fixture(scope="module")
def t5() -> Any:
    return stand_in_tokenizer(find("flux").components["tokenizer_2"].config)


def test_clip_pads_with_its_end(clip: Any) -> None:
    ids = clip(PROMPT, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    assert ids.shape == (1, clip.model_max_length)
    assert ids[0, 0] == clip.bos_token_id == 49406
    assert ids[0, -1] == clip.pad_token_id == clip.eos_token_id == 49407


def test_clip_g_pads_with_zero() -> None:
    other = stand_in_tokenizer(find("sdxl").components["tokenizer_2"].config)
    ids = other("a dog", padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    assert (ids[0, 0], ids[0, 3], ids[0, -1]) == (49406, 49407, 0)


def test_t5_ends_and_masks(t5: Any) -> None:
    out = t5(
        [PROMPT, "a dog"], padding="max_length", max_length=512, truncation=True, return_length=False,
        return_overflowing_tokens=False, add_special_tokens=True, return_attention_mask=True, return_tensors="pt",
    )  # fmt: skip
    assert set(out) == {"input_ids", "attention_mask"}
    assert out.input_ids.shape == out.attention_mask.shape == (2, 512)
    assert out.input_ids[1].tolist()[:4] == [320, 320, 1, 0]
    assert out.attention_mask[1].sum() == 3


def test_token_counts_are_realistic(clip: Any, t5: Any) -> None:
    words = len(PROMPT.replace(",", " ,").split())
    for tokenizer in (clip, t5):
        assert words <= len(tokenizer(PROMPT, padding="longest").input_ids) <= 1.5 * words
    assert len(t5("一只猫在草地上", padding="longest").input_ids) == 7 + 1


def test_long_prompts_are_cut_and_read_back(clip: Any) -> None:
    cut = clip("word " * 200, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    whole = clip("word " * 200, padding="longest", return_tensors="pt").input_ids
    assert (cut.shape[-1], whole.shape[-1]) == (77, 202)
    assert clip.batch_decode(whole[:, 76:-1])


def test_qwen_follows_its_chat_template() -> None:
    qwen = stand_in_tokenizer(find("z-image").components["tokenizer"].config)
    chat = [{"role": "user", "content": "a dog"}]
    text = qwen.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    ids = qwen(text, padding="max_length", max_length=10, truncation=True).input_ids
    assert ids == [151644, 320, 320, 320, 151645, 151644, 320, 320, 151643, 151643]


def test_mistral_reads_messages_in_parts() -> None:
    mistral = stand_in_tokenizer(find("flux.2-dev").components["tokenizer"].config)
    chats = [
        [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("system", "be"), ("user", "a dog"))
        ]
    ] * 2
    out = mistral.apply_chat_template(
        chats, add_generation_prompt=False, tokenize=True, return_dict=True, return_tensors="pt", padding="max_length",
        truncation=True, max_length=16,
    )  # fmt: skip
    assert out["input_ids"].shape == out["attention_mask"].shape == (2, 16)
    assert out["input_ids"][0].tolist() == [11] * 8 + [1, 17, 320, 18, 3, 320, 320, 4]
