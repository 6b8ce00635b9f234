import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
try:
    pipe.to("cuda")
except torch.cuda.OutOfMemoryError:
    # a small card
    pipe.enable_model_cpu_offload()
pipe("an anchor").images[0].save("anchor.png")
