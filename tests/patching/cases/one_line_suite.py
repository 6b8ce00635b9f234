import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux")
if torch.cuda.is_available(): pipe.to("cuda")
