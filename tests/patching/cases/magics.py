%pip install diffusers
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux")
