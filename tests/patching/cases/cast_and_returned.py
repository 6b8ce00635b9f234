from __future__ import annotations

import torch
from diffusers import DiffusionPipeline, LCMScheduler


def build(model: str, *, device: str, half: bool) -> DiffusionPipeline:
    dtype = torch.bfloat16 if half else torch.float32
    pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=dtype)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    return pipe.to(device, dtype)


build("stabilityai/stable-diffusion-xl-base-1.0", device="cuda", half=True)("a sail").images[0].save("sail.png")
