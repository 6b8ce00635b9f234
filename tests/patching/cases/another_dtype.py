import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux", torch_dtype=torch.float16)
