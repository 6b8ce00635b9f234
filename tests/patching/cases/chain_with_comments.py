import torch
from diffusers import FluxPipeline

pipe = (
    FluxPipeline
    .from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype = torch.bfloat16)  # some minutes
    .to("cuda")  # all of it
)
pipe("a cove").images[0].save("cove.png")
