"""Goes on where memory runs out: the call that failed is made again with less of it, and nothing of that is left.

No GPU is needed: a decoder that is given more than 32 x 32 latents at once fails here as it would on a full card.
Without `retry=True` the guard lets the error pass, and tells what ran out and the cheapest plan that would have fitted.
"""

import logging
from typing import Any

import diffusers
import torch

import memplan

MOST = 32 * 32
"""Latents that the pretended card can decode at once."""
FULL = (
    "CUDA out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total capacity of 8.00 GiB of which 24.00 MiB is "
    "free. Including non-PyTorch memory, this process has 7.98 GiB memory in use. Of the allocated memory 7.60 GiB is "
    "allocated by PyTorch, and 20.00 MiB is reserved by PyTorch but unallocated."
)
"""PyTorch's words for it."""


def small_dit() -> Any:
    """A DiTPipeline of random weights, whose pictures are of 64 x 64 latents."""
    torch.manual_seed(0)
    vae: dict[str, Any] = {
        "sample_size": 64, "latent_channels": 4, "block_out_channels": (16, 16), "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }  # fmt: skip
    scheduler: Any = diffusers.DDIMScheduler()
    pipe: Any = diffusers.DiTPipeline(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=1, sample_size=64
        ),
        diffusers.AutoencoderKL(**vae),
        scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def limited(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
    """Raises what PyTorch raises, where the decoder is given too much."""
    if given[0].shape[-2:].numel() > MOST:
        raise torch.OutOfMemoryError(FULL)


def main() -> None:
    """Run out of memory, then go on."""
    logging.disable(logging.WARNING)  # what diffusers says of missing extras
    pipe = small_dit()
    pipe.vae.decoder.register_forward_pre_hook(limited)
    call: dict[str, Any] = {"class_labels": [3], "guidance_scale": 1.0, "num_inference_steps": 2}
    try:
        pipe(**call)
    except torch.OutOfMemoryError as error:
        print("without a guard:", str(error).partition(".")[0])
    with memplan.guard(pipe, retry=True):
        print("with one, a picture:", pipe(**call).images[0].size)
    print("afterwards the VAE works in tiles:", pipe.vae.use_tiling)


if __name__ == "__main__":
    main()
