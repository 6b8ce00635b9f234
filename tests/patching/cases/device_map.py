import torch
from diffusers import QwenImagePipeline
pipe = QwenImagePipeline.from_pretrained("models/qwen", torch_dtype=torch.bfloat16, device_map="balanced", max_memory={0: "12GB"})
pipe("a shop window").images[0].save("shop.png")
