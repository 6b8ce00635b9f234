import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image

pipe = AutoPipelineForText2Image.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.bfloat16
).to("cuda")
first = pipe("a barn").images[0]

img2img = AutoPipelineForImage2Image.from_pipe(pipe).to("cuda")
img2img("a barn in winter", image=first, strength=0.6).images[0].save("barn.png")
