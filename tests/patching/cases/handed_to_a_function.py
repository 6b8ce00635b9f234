import torch
from diffusers import FluxPipeline


def prepare(pipeline, tiles=True):
    pipeline.to("cuda")
    if tiles:
        pipeline.enable_vae_tiling()
    return pipeline


pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
prepare(pipe)
pipe("a cellar").images[0].save("cellar.png")
