import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux", torch_dtype=torch.bfloat16).to("cuda")
compiled = torch.compile(pipe.transformer)
pipe.transformer = compiled
pipe("a boat").images[0].save("boat.png")
