import torch
from diffusers import FluxPipeline
from diffusers.quantizers import PipelineQuantizationConfig

quantization = PipelineQuantizationConfig(
    quant_backend="bitsandbytes_8bit",
    quant_kwargs={"load_in_8bit": True},
    components_to_quantize=["transformer"],
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    quantization_config=quantization,  # halves the transformer
    torch_dtype=torch.bfloat16,
)
pipe.to("cuda")
pipe("a loaf of bread").images[0].save("bread.png")
