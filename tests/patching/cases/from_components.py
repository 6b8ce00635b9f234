import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

text2img = StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=torch.bfloat16).to("cuda")
img2img = StableDiffusionImg2ImgPipeline(**text2img.components)
draft = text2img("a cottage").images[0]
img2img("a cottage by night", image=draft).images[0].save("night.png")
