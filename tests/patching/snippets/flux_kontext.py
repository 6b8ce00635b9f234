import torch
from diffusers import FluxKontextPipeline
from diffusers.utils import load_image

pipeline = FluxKontextPipeline.from_pretrained("black-forest-labs/FLUX.1-Kontext-dev", torch_dtype=torch.bfloat16)
pipeline.to("cuda")

picture = load_image("cat.png").convert("RGB")
pipeline(image=picture, prompt="put a hat on the cat", guidance_scale=2.5).images[0].save("hat.png")
