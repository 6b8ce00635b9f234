"""Language models that encode prompts."""

from typing import Any

import transformers

from tests.pipelines.parts import VOCAB, Size


def _decoder(size: Size, **more: Any) -> dict[str, Any]:
    """What the configs of decoders agree on."""
    return {
        "vocab_size": VOCAB, "hidden_size": size.text, "intermediate_size": 2 * size.text, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": size.text // 4, "max_position_embeddings": 1024,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    } | more  # fmt: skip


def _sections(size: Size) -> dict[str, Any]:
    """Rotary positions in time, height and width."""
    half = size.text // 8
    sections = [half // 4, half // 4, half - half // 4 * 2]
    return {"rope_theta": 1e6, "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": sections}}


def _vision(size: Size, **more: Any) -> dict[str, Any]:
    return {"hidden_size": size.text, "intermediate_size": size.text, "num_hidden_layers": 1, **more}


def qwen3(size: Size, causal: bool = False) -> Any:
    """A Qwen3 decoder."""
    config = transformers.Qwen3Config(**_decoder(size))
    return transformers.Qwen3ForCausalLM(config) if causal else transformers.Qwen3Model(config)


def gemma2(size: Size) -> Any:
    """A Gemma 2 decoder."""
    return transformers.Gemma2Model(transformers.Gemma2Config(**_decoder(size, sliding_window=16)))


def llama(size: Size) -> Any:
    """A Llama decoder."""
    return transformers.LlamaModel(transformers.LlamaConfig(**_decoder(size)))


def qwen25_text(size: Size) -> Any:
    """The decoder of Qwen2.5-VL."""
    return transformers.Qwen2_5_VLTextModel(transformers.Qwen2_5_VLTextConfig(**_decoder(size), **_sections(size)))


def qwen25_vl(size: Size) -> Any:
    """Qwen2.5-VL with its vision tower."""
    vision = {"depth": 1, "hidden_size": size.text, "intermediate_size": size.text, "num_heads": 2}
    config = transformers.Qwen2_5_VLConfig(
        text_config=_decoder(size) | _sections(size), vision_config=vision | {"out_hidden_size": size.text}
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def mistral3(size: Size) -> Any:
    """Mistral 3 with its vision tower."""
    vision = _vision(size, model_type="pixtral", num_attention_heads=2, image_size=30, patch_size=6)
    config = transformers.Mistral3Config(
        text_config=_decoder(size, model_type="mistral", sliding_window=None), vision_config=vision,
        vision_feature_layer=-1, image_token_index=3,
    )  # fmt: skip
    return transformers.Mistral3ForConditionalGeneration(config)


def gemma3(size: Size) -> Any:
    """Gemma 3 with its vision tower."""
    config = transformers.Gemma3Config(
        text_config=_decoder(size, sliding_window=64),
        vision_config=_vision(size, num_attention_heads=2, image_size=28, patch_size=14),
        mm_tokens_per_image=4, image_token_index=3, boi_token_index=4, eoi_token_index=5,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)
