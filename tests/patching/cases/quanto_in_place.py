import torch
from diffusers import FluxPipeline
from optimum.quanto import freeze, qfloat8, quantize

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize(pipe.transformer, weights=qfloat8)
freeze(pipe.transformer)
pipe.to("cuda")
pipe("a clock").images[0].save("clock.png")
