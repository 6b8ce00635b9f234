import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
# The style.
pipe.load_lora_weights("styles/ink.safetensors", adapter_name="ink")
pipe.set_adapters(["ink"], adapter_weights=[0.8])

pipe("a heron, ink drawing").images[0].save("heron.png")
