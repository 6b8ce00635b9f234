import torch
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
if torch.cuda.is_available():
    pipe.to("cuda")
elif torch.backends.mps.is_available():
    pipe.to("mps")
pipe("a lamp")
