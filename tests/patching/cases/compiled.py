import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("models/sdxl", torch_dtype=torch.bfloat16).to("cuda")
pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
pipe.unet.to(memory_format=torch.channels_last)
pipe("a train").images[0].save("train.png")
