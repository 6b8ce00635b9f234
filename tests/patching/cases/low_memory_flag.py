import os

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

LOW = os.getenv("LOW_VRAM", "0") == "1"
pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
if LOW:
    pipe.enable_sequential_cpu_offload()
    pipe.vae.enable_tiling()
    print("in little memory")
else:
    pipe.to("cuda")
export_to_video(pipe("a wake").frames[0], "wake.mp4")
