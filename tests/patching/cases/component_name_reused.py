import torch
from diffusers import AutoencoderTiny, FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux", torch_dtype=torch.bfloat16)
pipe.to("cuda")
vae = pipe.vae
vae.enable_tiling()
pipe("a boat").images[0].save("boat.png")
vae = AutoencoderTiny.from_pretrained("models/tiny").to("cuda")
