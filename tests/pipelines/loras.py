"""LoRAs for the pipelines, as peft makes them and as files."""

from pathlib import Path
from typing import Any

import pytest

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of a denoiser that LoRAs adapt."""
CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Those of a CLIP text encoder."""
RANK = 4
FILE = "pytorch_lora_weights.safetensors"
"""How diffusers names the file."""


def add(module: Any, targets: tuple[str, ...], name: str = "default", kind: str = "Lora", **settings: Any) -> None:
    """Adapt the layers of `module` whose names end in one of `targets`; `kind` is Lora, LoHa or LoKr."""
    peft: Any = pytest.importorskip("peft")
    settings = ({"init_lora_weights": False} if kind == "Lora" else {"init_weights": False}) | settings
    module.add_adapter(getattr(peft, f"{kind}Config")(r=RANK, target_modules=list(targets), **settings), name)


def with_lora(pipe: Any) -> Any:
    """`pipe` with a LoRA on its denoiser and one on its CLIP text encoder."""
    add(getattr(pipe, "transformer", None) or pipe.unet, ATTENTION)
    add(pipe.text_encoder, CLIP)
    return pipe


def fused(pipe: Any) -> Any:
    """`pipe` with the same LoRAs added to its weights."""
    with_lora(pipe).fuse_lora(components=["transformer" if hasattr(pipe, "transformer") else "unet", "text_encoder"])
    return pipe


def saved(pipe: Any, folder: Path) -> Path:
    """A file with the LoRAs of `pipe`, for `load_lora_weights`."""
    utils: Any = pytest.importorskip("peft.utils")
    denoiser = "transformer" if hasattr(pipe, "transformer") else "unet"
    parts = {denoiser: getattr(pipe, denoiser), "text_encoder": pipe.text_encoder}
    weights = {f"{name}_lora_layers": utils.get_peft_model_state_dict(part) for name, part in parts.items()}
    type(pipe).save_lora_weights(folder, **weights)
    return folder / FILE
