from functools import lru_cache

import torch
from diffusers import FluxPipeline


@lru_cache(maxsize=1)
def pipeline():
    flux = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    flux.set_progress_bar_config(disable=True)

    # from here on it is on the card
    return flux.to("cuda")


pipeline()("a pier").images[0].save("pier.png")
