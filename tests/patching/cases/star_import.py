import torch
from diffusers import *

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe("a gull").images[0].save("gull.png")
