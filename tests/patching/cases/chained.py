import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.bfloat16,
    use_safetensors=True,
).to("cuda")
pipe("a red fox in the snow", num_inference_steps=20).images[0].save("fox.png")
