import torch
from diffusers import BitsAndBytesConfig, FluxPipeline, FluxTransformer2DModel

MODEL = "black-forest-labs/FLUX.1-dev"
transformer = FluxTransformer2DModel.from_pretrained(
    MODEL,
    subfolder="transformer",
    quantization_config=BitsAndBytesConfig(load_in_8bit=True),
    torch_dtype=torch.bfloat16,
)
pipe = FluxPipeline.from_pretrained(MODEL, transformer=transformer, torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe("a loaf of bread").images[0].save("bread.png")
