import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, GGUFQuantizationConfig

config = GGUFQuantizationConfig(compute_dtype=torch.bfloat16)
transformer = FluxTransformer2DModel.from_single_file(
    "models/flux1-dev-Q4_K_S.gguf", quantization_config=config, torch_dtype=torch.bfloat16
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev", transformer=transformer, torch_dtype=torch.bfloat16
)
pipe.enable_model_cpu_offload()
pipe("a hull").images[0].save("hull.png")
