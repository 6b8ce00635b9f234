import torch
from diffusers import StableDiffusionXLPipeline


def load(model_id):
    pipeline = StableDiffusionXLPipeline.from_pretrained(model_id, torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


pipe = load("stabilityai/stable-diffusion-xl-base-1.0")
pipe = pipe.to("cuda")
pipe("a teapot").images[0].save("teapot.png")
