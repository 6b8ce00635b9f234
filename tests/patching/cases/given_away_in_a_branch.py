import torch
from diffusers import FluxPipeline


def load(lora=None, device="cuda"):
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    if lora:
        pipe.load_lora_weights(lora)
        return pipe.to(device)
    return pipe.to(device)


load()("a keel").images[0].save("keel.png")
