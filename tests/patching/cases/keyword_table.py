import torch
from diffusers import FluxPipeline

options = dict(torch_dtype=torch.bfloat16, device_map="balanced")
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", **options)
pipe("a net").images[0].save("net.png")
