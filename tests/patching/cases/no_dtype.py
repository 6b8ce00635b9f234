from __future__ import annotations

from diffusers import StableDiffusionPipeline

pipe: StableDiffusionPipeline = StableDiffusionPipeline.from_pretrained("models/sd15")
pipe.cuda()
pipe("a map").images[0].save("map.png")
