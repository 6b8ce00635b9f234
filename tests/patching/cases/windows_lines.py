import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=torch.bfloat16)
pipe.to("cuda")
print(pipe("café").images)