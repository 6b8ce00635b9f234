"""Pipelines as the sources set them up where that differs from the bundled model."""

from collections.abc import Callable
from typing import Any

import torch

from memplan.probes.fakes.twin import Twin
from memplan.probes.sources import open_pipeline

Arguments = dict[str, Any]
FLUX_TOKENS = 512


def twin_of(model: str, dtype: str, setup: str) -> tuple[Twin, Arguments]:
    """The twin of `model` loaded in `dtype` and changed by each word of `setup`, and what that adds to the call."""
    twin = open_pipeline(model, dtype or None)
    arguments: Arguments = {}
    for word in setup.split():
        arguments |= SETUPS[word](twin.pipe)
    return twin, arguments


def vae_not_upcast(pipe: Any) -> Arguments:
    """madebyollin/sdxl-vae-fp16-fix: the same VAE, whose config does not ask for a decode in float32."""
    pipe.vae.register_to_config(force_upcast=False)
    return {}


def eager_attention(pipe: Any) -> Arguments:
    """The attention processor of before PyTorch 2: products and softmax in separate ops."""
    for part in (pipe.unet, pipe.vae):
        part.set_default_attn_processor()
    return {}


def cast_to_float16(pipe: Any) -> Arguments:
    """Loaded in bfloat16, then `.to(torch.float16)`: no weight is kept in float32."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(torch.float16)
    return {}


def position_table(pipe: Any) -> Arguments:
    """CogVideoX-5b before diffusers 0.31 (PR #9263): its transformer kept a table of positions that it did not use."""
    sizes = pipe.transformer.config
    frames = (sizes.sample_frames - 1) // sizes.temporal_compression_ratio + 1
    patches = (sizes.sample_height // sizes.patch_size) * (sizes.sample_width // sizes.patch_size) * frames
    width = sizes.num_attention_heads * sizes.attention_head_dim
    table = torch.zeros(1, sizes.max_text_seq_length + patches, width, dtype=pipe.transformer.dtype)
    pipe.transformer.register_buffer("pos_embedding", table, persistent=False)
    return {}


def ddim(pipe: Any) -> Arguments:
    """CogVideoX with its DDIM scheduler."""
    from diffusers import CogVideoXDDIMScheduler

    pipe.scheduler = CogVideoXDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    return {}


def flux_embedded(pipe: Any) -> Arguments:
    """FLUX.1 without text encoders, called with embeddings that were computed before."""
    width, pooled = pipe.text_encoder_2.config.d_model, pipe.text_encoder.config.hidden_size
    pipe.register_modules(text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None)
    return {
        "prompt": None,
        "prompt_embeds": torch.zeros(1, FLUX_TOKENS, width, dtype=torch.bfloat16),
        "pooled_prompt_embeds": torch.zeros(1, pooled, dtype=torch.bfloat16),
    }


SETUPS: dict[str, Callable[[Any], Arguments]] = {
    f.__name__: f for f in (vae_not_upcast, eager_attention, position_table, cast_to_float16, ddim, flux_embedded)
}
