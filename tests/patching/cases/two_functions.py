import torch
from diffusers import FluxImg2ImgPipeline, FluxPipeline


def drawn(prompt):
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    pipe.to("cuda")
    return pipe(prompt).images[0]


def redrawn(prompt, image):
    pipe = FluxImg2ImgPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    pipe.to("cuda")
    return pipe(prompt, image=image).images[0]


redrawn("a storm", drawn("a calm")).save("storm.png")
