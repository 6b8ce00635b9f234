import torch
from diffusers import FluxFillPipeline
from diffusers.utils import load_image

image, mask = load_image("room.png"), load_image("mask.png")
pipe = FluxFillPipeline.from_pretrained("black-forest-labs/FLUX.1-Fill-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe(prompt="a white vase", image=image, mask_image=mask, generator=torch.Generator("cpu").manual_seed(0)).images[0]
