import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe = pipe.to("cuda") if torch.cuda.is_available() else pipe
pipe("a mast").images[0].save("mast.png")
