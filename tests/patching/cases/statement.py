import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.bfloat16)
pipe.to("cuda")  # needs a large card

image = pipe("a lighthouse at dusk").images[0]
image.save("lighthouse.png")
