import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torchao.quantization import int8_weight_only, quantize_

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", transformer=None, torch_dtype=torch.bfloat16)
pipe.transformer = FluxTransformer2DModel.from_pretrained("models/portraits", torch_dtype=torch.bfloat16)
quantize_(pipe.transformer, int8_weight_only())
pipe.to("cuda")
pipe("a sailor").images[0].save("sailor.png")
