"""Loads a pipeline from a folder under a plan: the headers of its files are read for that, before any weight.

The folder is written here, from random weights. With a Hub id in its place the same lines load what is published.
"""

import logging
import tempfile
from typing import Any

import diffusers
import torch

import memplan


def small_dit() -> Any:
    """A DiTPipeline of 14 million random weights, which draws what a number stands for."""
    torch.manual_seed(0)
    vae: dict[str, Any] = {
        "sample_size": 32, "latent_channels": 4, "block_out_channels": (64, 64), "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }  # fmt: skip
    scheduler: Any = diffusers.DDIMScheduler()
    return diffusers.DiTPipeline(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=4, attention_head_dim=64, in_channels=4, out_channels=8, num_layers=8, sample_size=16
        ),
        diffusers.AutoencoderKL(**vae),
        scheduler,
    )


def main() -> None:
    """Save, plan and load, generate, undo."""
    logging.disable(logging.WARNING)  # what diffusers says of missing extras
    diffusers.utils.logging.disable_progress_bar()
    here = torch.cuda.is_available()
    target = memplan.Target() if here else memplan.Target(vram=0.05, ram=8)  # no GPU: a card too small is made up
    call: dict[str, Any] = {"class_labels": [3], "guidance_scale": 1.0, "num_inference_steps": 2}

    with tempfile.TemporaryDirectory() as folder:
        small_dit().save_pretrained(folder)
        pipe = memplan.load(folder, prefer="quality", target=target, device="cuda" if here else "cpu", **call)
        pipe.set_progress_bar_config(disable=True)
        applied = memplan.applied(pipe)
        assert applied is not None
        print("loaded under:", *applied.strategies)
        print("picture:", pipe(**call).images[0].size)
        applied.undo()
    print("undone: the pipeline is as from_pretrained() gives it")


if __name__ == "__main__":
    main()
