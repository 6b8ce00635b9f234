import sys
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("models/sdxl", torch_dtype=torch.bfloat16)
match sys.argv[1:]:
    case ["low"]:
        pipe.enable_sequential_cpu_offload()
    case _:
        pipe.cuda()
pipe("a buoy").images[0].save("buoy.png")
