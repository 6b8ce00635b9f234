import contextlib
import torch
from diffusers import FluxPipeline


@contextlib.contextmanager
def borrowed(card):
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    try:
        yield pipe.to(f"cuda:{card}")
    finally:
        del pipe
        torch.cuda.empty_cache()


with borrowed(1) as flux:
    flux("a quay").images[0].save("quay.png")
