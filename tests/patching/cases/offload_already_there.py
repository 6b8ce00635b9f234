import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.bfloat16)

# Save memory:
pipe.enable_sequential_cpu_offload()
pipe.enable_vae_slicing()
pipe.vae.enable_tiling()

pipe("a windmill").images[0].save("windmill.png")
