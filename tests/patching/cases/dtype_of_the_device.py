import torch
from diffusers import StableDiffusionPipeline

if torch.cuda.is_available():
    device, dtype = torch.device("cuda"), torch.bfloat16
else:
    device, dtype = torch.device("cpu"), torch.float32
half = torch.bfloat16 if device.type == "cuda" else torch.float32
pipe = StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=half)
pipe = pipe.to(device)
pipe("a tide").images[0].save("tide.png")
