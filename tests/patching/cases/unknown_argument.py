from diffusers import FluxPipeline

from settings import where

pipe = FluxPipeline.from_pretrained("models/flux")
pipe.to(where)
