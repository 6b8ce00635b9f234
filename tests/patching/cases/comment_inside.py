import torch
from diffusers import FluxPipeline
from torchao.quantization import quantize_, int8_weight_only
from accelerate import Accelerator
acc = Accelerator()
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize_(pipe.transformer, int8_weight_only())
# to the card
pipe = (
    pipe
    .to(acc.device)   # here
)
image = pipe(
    "x"
).images[0]
