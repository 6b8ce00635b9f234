import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_single_file("models/juggernaut.safetensors", torch_dtype=torch.bfloat16)
pipe.to("cuda")
pipe("a beach").images[0].save("beach.png")
