import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

name = "harbour"
sizes = {"width": 1024, "height": 1024}
vae = AutoencoderKL.from_pretrained("models/vae-fix", torch_dtype=torch.bfloat16)
pipe = StableDiffusionXLPipeline.from_pretrained("models/sdxl", vae=vae, torch_dtype=torch.bfloat16).to("cuda")
pipe(f"a {name}", **sizes).images[0].save(f"{name}.png")
