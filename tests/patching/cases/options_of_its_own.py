import argparse

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

parser = argparse.ArgumentParser()
parser.add_argument("--offload", action="store_true")
parser.add_argument("--tiling", action="store_true")
parser.add_argument("--device", default="cuda")
args = parser.parse_args()

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
if args.offload:
    pipe.enable_model_cpu_offload()
else:
    pipe.to(args.device)
if args.tiling:
    # for long videos
    pipe.vae.enable_tiling()

export_to_video(pipe("a swell").frames[0], "swell.mp4")
