import sys

from diffusers import FluxPipeline, StableDiffusionXLPipeline

if sys.argv[1] == "flux":
    pipe = FluxPipeline.from_pretrained("models/flux")
else:
    pipe = StableDiffusionXLPipeline.from_pretrained("models/sdxl")
pipe.to("cuda")
