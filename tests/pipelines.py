"""Real diffusers pipelines with random weights, small enough for a CPU: the ground truth of the tests.

"tiny" runs in well under a second and is for laws; "medium" has activations of tens to hundreds of MiB and is for
holding predicted peaks against measured ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

VOCAB = 512  # more than the tokenizer's 260 entries
TEXT_TOKENS = 32  # max_sequence_length of every call that has one
FRAMES = 9  # of every video: more than one chunk for each of the video VAEs


@dataclass(frozen=True)
class Size:
    """How big the parts of a family are: `levels` are the channels of an image VAE, `video_base` a video VAE's first."""

    layers: int
    heads: int
    head_dim: int
    text: int
    levels: tuple[int, ...]
    unet: tuple[int, int]
    pixels: int
    video_base: int
    video_pixels: int

    @property
    def width(self) -> int:
        """Channels of a transformer."""
        return self.heads * self.head_dim


SIZES = {
    "tiny": Size(
        layers=3, heads=2, head_dim=16, text=32, levels=(8, 16), unet=(16, 32), pixels=32,
        video_base=8, video_pixels=32,
    ),
    "medium": Size(
        layers=4, heads=8, head_dim=64, text=256, levels=(32, 64, 128, 128), unet=(128, 256), pixels=512,
        video_base=16, video_pixels=256,
    ),
}  # fmt: skip


# ---- text ------------------------------------------------------------------------------------------------------------
def tokenizer(length: int) -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer, built in memory."""
    specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(specials + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length,
        pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip


def clip(size: Size, projection: bool = False) -> torch.nn.Module:
    """A CLIP text encoder."""
    config = transformers.CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=size.text, intermediate_size=4 * size.text, projection_dim=size.text,
        num_hidden_layers=size.layers, num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def t5(size: Size, width: int | None = None, kind: str = "T5") -> torch.nn.Module:
    """A T5 encoder, or with kind "UMT5" its multilingual sibling."""
    d_model = width or size.text
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCAB, d_model=d_model, d_kv=d_model // 4, d_ff=2 * d_model, num_layers=size.layers, num_heads=4,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
        is_encoder_decoder=False,
    )  # fmt: skip
    return getattr(transformers, f"{kind}EncoderModel")(config)


# ---- images ----------------------------------------------------------------------------------------------------------
def image_vae(size: Size) -> torch.nn.Module:
    """The VAE of Stable Diffusion and FLUX."""
    n = len(size.levels)
    return diffusers.AutoencoderKL(
        sample_size=size.pixels, block_out_channels=size.levels, layers_per_block=1, latent_channels=4,
        norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        scaling_factor=0.18215, shift_factor=0.0,
    )  # fmt: skip


def unet(size: Size, **more: Any) -> torch.nn.Module:
    """A U-Net with one level that attends and one that does not."""
    settings: dict[str, Any] = {
        "sample_size": size.pixels // 2 ** (len(size.levels) - 1), "block_out_channels": size.unet,
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4, "cross_attention_dim": size.text,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**settings | more)


def sd15(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion 1.5."""
    return diffusers.StableDiffusionPipeline(
        unet=unet(size), vae=image_vae(size), scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        text_encoder=clip(size), tokenizer=tokenizer(77),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion XL."""
    time_ids = 8
    return diffusers.StableDiffusionXLPipeline(
        unet=unet(
            size, cross_attention_dim=2 * size.text, use_linear_projection=True, transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time", addition_time_embed_dim=time_ids,
            projection_class_embeddings_input_dim=6 * time_ids + size.text,
        ),
        vae=image_vae(size), scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        text_encoder=clip(size), tokenizer=tokenizer(77),
        text_encoder_2=clip(size, projection=True), tokenizer_2=tokenizer(77),
    )  # fmt: skip


def sd3(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion 3."""
    both_clips = 2 * size.text
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=size.pixels, patch_size=2, in_channels=4, out_channels=4, num_layers=size.layers,
            num_attention_heads=size.heads, attention_head_dim=size.head_dim, caption_projection_dim=size.width,
            joint_attention_dim=both_clips, pooled_projection_dim=both_clips,
        ),
        vae=image_vae(size), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip(size, projection=True), tokenizer=tokenizer(77),
        text_encoder_2=clip(size, projection=True), tokenizer_2=tokenizer(77),
        text_encoder_3=t5(size, both_clips), tokenizer_3=tokenizer(512),
    )  # fmt: skip


def flux(size: Size) -> diffusers.DiffusionPipeline:
    """FLUX.1."""
    quarter = size.head_dim // 4
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16, num_layers=size.layers, num_single_layers=2 * size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, axes_dims_rope=(quarter, quarter, 2 * quarter),
            joint_attention_dim=size.text, pooled_projection_dim=size.text, guidance_embeds=True,
        ),
        vae=image_vae(size), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip(size), tokenizer=tokenizer(77), text_encoder_2=t5(size), tokenizer_2=tokenizer(512),
    )  # fmt: skip


# ---- video -----------------------------------------------------------------------------------------------------------
def wan_transformer(size: Size) -> torch.nn.Module:
    """A Wan transformer."""
    return diffusers.WanTransformer3DModel(
        num_layers=size.layers, num_attention_heads=size.heads, attention_head_dim=size.head_dim,
        ffn_dim=4 * size.width, text_dim=size.text, qk_norm="rms_norm_across_heads", cross_attn_norm=True,
    )  # fmt: skip


def wan(size: Size, experts: int = 1) -> diffusers.DiffusionPipeline:
    """Wan 2.1, or with two experts Wan 2.2."""
    return diffusers.WanPipeline(
        transformer=wan_transformer(size), transformer_2=wan_transformer(size) if experts > 1 else None,
        boundary_ratio=0.9 if experts > 1 else None,
        vae=diffusers.AutoencoderKLWan(base_dim=size.video_base, dim_mult=[1, 2, 4, 4], num_res_blocks=1),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=t5(size, kind="UMT5"), tokenizer=tokenizer(512),
    )  # fmt: skip


def wan22(size: Size) -> diffusers.DiffusionPipeline:
    """Wan 2.2: two transformers, one for the noisy half of the steps."""
    return wan(size, experts=2)


def cogvideox(size: Size) -> diffusers.DiffusionPipeline:
    """CogVideoX 2B."""
    latent = size.video_pixels // 8
    return diffusers.CogVideoXPipeline(
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_layers=size.layers, num_attention_heads=size.heads, attention_head_dim=size.head_dim, in_channels=4,
            out_channels=4, text_embed_dim=size.text, max_text_seq_length=TEXT_TOKENS, sample_frames=FRAMES,
            sample_width=latent, sample_height=latent,
        ),
        vae=diffusers.AutoencoderKLCogVideoX(
            block_out_channels=tuple(size.video_base * m for m in (1, 2, 2, 4)), layers_per_block=1, latent_channels=4,
            down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
            norm_num_groups=4, sample_height=size.video_pixels, sample_width=size.video_pixels,
        ),
        scheduler=diffusers.CogVideoXDDIMScheduler(), text_encoder=t5(size), tokenizer=tokenizer(TEXT_TOKENS),
    )  # fmt: skip


def ltx(size: Size) -> diffusers.DiffusionPipeline:
    """LTX-Video."""
    channels = tuple(size.video_base * m for m in (1, 2, 2, 4))
    halve = (True, True, True, False)
    return diffusers.LTXPipeline(
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, cross_attention_dim=size.width, caption_channels=size.text,
        ),
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=8, block_out_channels=channels, decoder_block_out_channels=channels, patch_size=1,
            spatio_temporal_scaling=halve, decoder_spatio_temporal_scaling=halve, layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), text_encoder=t5(size), tokenizer=tokenizer(128),
    )  # fmt: skip


# ---- the two verbs ---------------------------------------------------------------------------------------------------
_BUILDERS: dict[str, Callable[[Size], diffusers.DiffusionPipeline]] = {
    f.__name__: f for f in (flux, sdxl, sd15, sd3, wan, wan22, cogvideox, ltx)
}
_VIDEO = ("wan", "wan22", "cogvideox", "ltx")
FAMILIES = tuple(_BUILDERS)


def build(name: str, size: str = "tiny", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A pipeline of family `name` with random weights, as if loaded; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = _BUILDERS[name](SIZES[size])
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            _load_as(part.eval(), dtype)
    return pipe


def _load_as(part: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast like `from_pretrained(torch_dtype=dtype)`, which keeps some modules in float32."""
    keep = getattr(part, "_keep_in_fp32_modules", None) or ()
    if isinstance(part, transformers.PreTrainedModel) and dtype != torch.float16:
        keep = ()  # transformers keeps them for float16 only
    for name, weight in part.state_dict(keep_vars=True).items():
        if weight.is_floating_point() and not set(name.split(".")) & set(keep):
            weight.data = weight.data.to(dtype)


def inputs(name: str, size: str = "tiny", seed: int = 0) -> dict[str, Any]:
    """The arguments of one call that fits `build(name, size)`."""
    s = SIZES[size]
    pixels = s.video_pixels if name in _VIDEO else s.pixels
    call: dict[str, Any] = {
        "prompt": "a small dog", "height": pixels, "width": pixels, "num_inference_steps": 2, "guidance_scale": 4.0,
        "output_type": "pt", "generator": torch.Generator("cpu").manual_seed(seed),
    }  # fmt: skip
    if name in _VIDEO:
        call["num_frames"] = FRAMES
    if name not in ("sd15", "sdxl"):
        call["max_sequence_length"] = TEXT_TOKENS
    return call
