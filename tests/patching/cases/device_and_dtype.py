import torch
from diffusers import StableDiffusionPipeline

device, dtype = "cuda", torch.bfloat16
pipe = StableDiffusionPipeline.from_pretrained("models/sd15").to("cuda", torch.bfloat16)
pipe.safety_checker = None
print(pipe("a boat").images)
