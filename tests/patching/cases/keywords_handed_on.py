import torch
from diffusers import FluxPipeline


def load(**options):
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", **options)
    return pipe.to("cuda")


load(torch_dtype=torch.bfloat16)("a rope").images[0].save("rope.png")
