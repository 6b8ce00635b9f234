"""Published models at full size, with fake weights in bfloat16 as `from_pretrained` would load them."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

XL_UNET: dict[str, Any] = {
    "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SD3_MEDIUM: dict[str, Any] = {
    "sample_size": 128, "num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24, "out_channels": 16,
    "joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}  # fmt: skip
WAN_14B: dict[str, Any] = {
    "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096,
    "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40,
}  # fmt: skip
T5_XXL: dict[str, Any] = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False,
}  # fmt: skip
SD_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 1024,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip

BUILDERS: dict[str, Callable[[], Any]] = {
    "flux": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
    "sdxl": lambda: diffusers.UNet2DConditionModel(**XL_UNET),
    "sd3": lambda: diffusers.SD3Transformer2DModel(**SD3_MEDIUM),
    "wan": lambda: diffusers.WanTransformer3DModel(**WAN_14B),
    "t5": lambda: transformers.T5EncoderModel(transformers.T5Config(**T5_XXL)),
    "vae": lambda: diffusers.AutoencoderKL(**SD_VAE),
}


def full_size(name: str) -> Any:
    """The module, on fake CPU tensors."""
    with FakeTensorMode():
        module = BUILDERS[name]().eval()
        keep = getattr(module, "_keep_in_fp32_modules", None) or ()
        keep = keep if isinstance(module, diffusers.ModelMixin) else ()
        for path, part in module.named_modules():
            for key, weight in part._parameters.items():
                if weight is not None and not set(f"{path}.{key}".split(".")) & set(keep):
                    part._parameters[key] = _halved(weight)
            for key, buffer in part._buffers.items():
                if buffer is not None and key not in part._non_persistent_buffers_set:
                    part._buffers[key] = buffer.to(torch.bfloat16)
    return module


def _halved(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    """The weight in bfloat16; made once for tied weights."""
    half: torch.nn.Parameter | None = getattr(weight, "_half", None)
    if half is None:
        half = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
        vars(weight)["_half"] = half
    return half
