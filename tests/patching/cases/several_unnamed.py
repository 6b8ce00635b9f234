import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline

first = StableDiffusionXLPipeline.from_pretrained("models/sdxl", torch_dtype=torch.bfloat16).to("cuda")
second = FluxPipeline.from_pretrained("models/flux", torch_dtype=torch.bfloat16).to("cuda")
