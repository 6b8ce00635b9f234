import torch
from diffusers import FluxPipeline


class Studio:
    def __init__(self):
        self.pipes = {}
        self.pipes["drawing"] = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
        for pipe in self.pipes.values():
            pipe.to("cuda")


Studio().pipes["drawing"]("a fish").images[0].save("fish.png")
