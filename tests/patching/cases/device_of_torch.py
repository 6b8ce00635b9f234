import torch
from diffusers import StableDiffusionPipeline

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
generator = torch.Generator(device=device).manual_seed(0)
pipe = StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=torch.bfloat16).to(device)
for name in ("kite", "boat"):
    pipe(f"a {name}", generator=generator).images[0].save(f"{name}.png")
