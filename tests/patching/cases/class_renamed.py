import torch
from diffusers import FluxPipeline

Pipeline = FluxPipeline
pipe = Pipeline.from_pretrained("models/flux", torch_dtype=torch.bfloat16)
pipe.to("cuda")
pipe("a boat").images[0].save("boat.png")
