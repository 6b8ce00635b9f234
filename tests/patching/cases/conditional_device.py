import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=torch.bfloat16)
if torch.cuda.is_available():
    # fast
    pipe = pipe.to("cuda")
else:
    pipe = pipe.to("cpu")
pipe("a kite").images[0].save("kite.png")
