#!/usr/bin/env python3
import argparse

import torch
from diffusers import AutoPipelineForText2Image

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="stabilityai/stable-diffusion-xl-base-1.0")
parser.add_argument("--device", default="cuda")
parser.add_argument("prompt")
args = parser.parse_args()

pipe = AutoPipelineForText2Image.from_pretrained(args.model, torch_dtype=torch.bfloat16, variant="fp16")
pipe = pipe.to(args.device)
pipe(args.prompt, height=1024, width=1024).images[0].save("out.png")
