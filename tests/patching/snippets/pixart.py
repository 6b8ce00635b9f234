import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained(
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", torch_dtype=torch.bfloat16
)
# Enable memory optimizations.
# pipe.enable_model_cpu_offload()
pipe.to("cuda")
image = pipe("a small cactus with a happy face").images[0]
