import torch, sys
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
if "--offload" in sys.argv:
    pipe.enable_model_cpu_offload()
else:
    pipe.to("cuda")
pipe("a lamp")
