"""Makes a picture from a prompt."""

import sys

import torch
from diffusers import FluxPipeline


def load():
    """The pipeline, on the GPU."""
    return FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")


def main(prompt):
    pipe = load()
    return pipe(prompt, height=768, width=768).images[0]


if __name__ == "__main__":
    main(sys.argv[1]).save("out.png")
