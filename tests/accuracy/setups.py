"""Pipelines as the sources set them up where that differs from the bundled model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from memplan.probes.fakes.twin import Twin
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.modules import Modules
from memplan.probes.sources.skeleton import fake_module

Arguments = dict[str, Any]
FLUX_TOKENS = 512
SDXL_TOKENS = 77


def twin_of(model: str, dtype: str, setup: str) -> tuple[Twin, Arguments]:
    """The twin of `model` loaded in `dtype` and changed by each word of `setup`, and what that adds to the call."""
    twin = open_pipeline(model, dtype or None)
    arguments: Arguments = {}
    for word in setup.split():
        arguments |= SETUPS[word](twin.pipe)
    return twin, arguments


class Encode(Modules):
    """A VAE by itself, whose call is its encode()."""

    def __call__(self, image: torch.Tensor) -> Any:
        """What the VAE makes of `image`, which is copied to the device first."""
        return self.components["vae"].encode(image.clone())  # type: ignore[operator]


def encoder_of(twin: Twin) -> Twin:
    """The VAE of `twin` alone."""
    return replace(twin, pipe=Encode({"vae": twin.pipe.vae}), call={})


def picture(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """The argument of `Encode` that stands for a picture of this height and width."""
    return {"image": torch.zeros(1, 3, arguments["height"], arguments["width"], dtype=dtype)}


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


def float32_wo(pipe: Any) -> Arguments:
    """T5 loaded by transformers 4 for bitsandbytes: it kept `wo` in float32 (`use_keep_in_fp32_modules`)."""
    for name, part in pipe.text_encoder_2.named_modules():
        if name.endswith(".wo"):
            part.to(torch.float32)
    return {}


def nothing_spared(pipe: Any) -> Arguments:
    """quanto's own quantize(), which knows of no layer that a library would leave as it is: T5's `wo` is converted."""
    for part in pipe.components.values():
        if getattr(part, "_keep_in_fp32_modules", None):
            part._keep_in_fp32_modules = None
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


def cast_position_table(pipe: Any) -> Arguments:
    """CogVideoX-2b before diffusers 0.33: from_pretrained cast all that a model had, its table of positions too."""
    table = pipe.transformer.patch_embed
    table.pos_embedding = table.pos_embedding.to(pipe.transformer.dtype)
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


def sdxl_embedded(pipe: Any) -> Arguments:
    """SDXL without text encoders, called with embeddings that were computed before, also of the negative prompt."""
    width, pooled = pipe.unet.config.cross_attention_dim, pipe.text_encoder_2.config.projection_dim
    pipe.register_modules(text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None)
    long, short = (torch.zeros(1, *size, dtype=pipe.unet.dtype) for size in ((SDXL_TOKENS, width), (pooled,)))
    given = {"prompt_embeds": long, "pooled_prompt_embeds": short}
    return {"prompt": None} | given | {f"negative_{name}": value for name, value in given.items()}


def tiny_vae(pipe: Any) -> Arguments:
    """madebyollin/taesd in the VAE's place, taken to be the library's default: its config is not at hand."""
    from diffusers import AutoencoderTiny

    pipe.register_modules(vae=_fake(AutoencoderTiny, {}, pipe.vae))
    return {}


def fused_projections(pipe: Any) -> Arguments:
    """transformer.fuse_qkv_projections(): query, key and value in one product, whose weights come on top of theirs."""
    with _mode(pipe.transformer), torch.no_grad():
        pipe.transformer.fuse_qkv_projections()
    return {}


def ltx_13b(pipe: Any) -> Arguments:
    """LTX-Video 0.9.7: the transformer of the bundled one with more and wider layers.

    48 layers of 32 heads of 128. Its config is not at hand; these make 24.29 GiB in bfloat16, and S10-m08 loads 24.38.
    """
    wider = {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48}
    config = {**pipe.transformer.config, **wider}
    pipe.register_modules(transformer=_fake(type(pipe.transformer), config, pipe.transformer))
    return {}


def _fake(cls: Any, config: Arguments, like: Any) -> Any:
    """A module of `cls` in the dtype and the mode of `like`."""
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    return fake_module(cls, own, like.dtype, _mode(like))


def _mode(part: Any) -> Any:
    """The mode of a module's fake weights."""
    return next(part.parameters()).fake_mode


SETUPS: dict[str, Callable[[Any], Arguments]] = {
    f.__name__: f
    for f in (
        vae_not_upcast,
        eager_attention,
        position_table,
        cast_to_float16,
        float32_wo,
        nothing_spared,
        cast_position_table,
        ddim,
        flux_embedded,
        sdxl_embedded,
        tiny_vae,
        fused_projections,
        ltx_13b,
    )
}
