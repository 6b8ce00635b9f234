from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
import torch

base = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.bfloat16, use_safetensors=True
)
base.to("cuda")
refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-refiner-1.0",
    text_encoder_2=base.text_encoder_2,
    vae=base.vae,
    torch_dtype=torch.bfloat16,
).to("cuda")

image = base(prompt="a lion", denoising_end=0.8, output_type="latent").images
image = refiner(prompt="a lion", denoising_start=0.8, image=image).images[0]
