import sys
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload(gpu_id=int(sys.argv[1]))
pipe("a reef").images[0].save("reef.png")
