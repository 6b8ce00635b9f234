"""Trains a denoiser through the whole solve: a small pipeline learns to make brighter pictures.

The score of the finished picture is differentiated through the VAE and every step of the scheduler.
"""

# diffusers names classes where it takes None.
# pyright: reportArgumentType=false

import logging
from typing import Any

import diffusers
import torch

import memplan

STEPS, ROUNDS = 4, 5


def small_sd3() -> Any:
    """A StableDiffusion3Pipeline with random weights and no text encoders; yours comes from from_pretrained()."""
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
        attention_head_dim=16, joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=32,
        pos_embed_max_size=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(block_out_channels=(16,), norm_num_groups=4, latent_channels=4, shift_factor=0.0)
    texts = dict.fromkeys(
        ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe: Any = diffusers.StableDiffusion3Pipeline(transformer=transformer, vae=vae, scheduler=scheduler, **texts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call() -> dict[str, Any]:
    """The arguments of one call: the same noise each time, and embeddings instead of a prompt."""
    noise = torch.Generator().manual_seed(0)
    return {
        "prompt_embeds": torch.randn(1, 8, 32, generator=noise),
        "pooled_prompt_embeds": torch.randn(1, 32, generator=noise),
        "latents": torch.randn(1, 4, 16, 16, generator=noise), "guidance_scale": 1.0, "height": 16, "width": 16,
        "num_inference_steps": STEPS, "output_type": "pt",
    }  # fmt: skip


def brightness(pipe: Any) -> torch.Tensor:
    """How bright the picture is, from 0 to 1; any score that torch can differentiate stands here."""
    score: torch.Tensor = pipe(**call())[0].mean()
    return score


def main() -> None:
    """Make pictures brighter, and say how bright they were and are."""
    logging.disable(logging.WARNING)  # what diffusers says of missing extras
    pipe = small_sd3()
    pipe.vae.requires_grad_(False)
    optimizer = torch.optim.AdamW(pipe.transformer.parameters(), lr=1e-2)
    before = float(brightness(pipe))
    with memplan.differentiable(pipe, checkpoint="step"):  # the memory of one forward at a time
        for _ in range(ROUNDS):
            optimizer.zero_grad()
            (-brightness(pipe)).backward()
            optimizer.step()
    after = float(brightness(pipe))
    print(f"brightness before {before:.3f}, after {ROUNDS} rounds {after:.3f}")
    print("brighter" if after > before else "NOT brighter")


if __name__ == "__main__":
    main()
