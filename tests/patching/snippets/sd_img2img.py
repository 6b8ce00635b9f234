import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.utils import load_image

device = "cuda"
pipe = StableDiffusionImg2ImgPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.bfloat16)
pipe = pipe.to(device)

init_image = load_image("sketch.jpg").resize((768, 512))
images = pipe(prompt="a valley in the mountains", image=init_image, strength=0.75, guidance_scale=7.5).images
