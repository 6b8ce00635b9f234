import torch
from diffusers import WanPipeline, WanTransformer3DModel
from diffusers.hooks.group_offloading import apply_group_offloading
from transformers import UMT5EncoderModel

text_encoder = UMT5EncoderModel.from_pretrained("Wan-AI/Wan2.1-T2V-14B-Diffusers", subfolder="text_encoder", torch_dtype=torch.bfloat16)
transformer = WanTransformer3DModel.from_pretrained("Wan-AI/Wan2.1-T2V-14B-Diffusers", subfolder="transformer", torch_dtype=torch.bfloat16)

# group-offloading
onload_device = torch.device("cuda")
offload_device = torch.device("cpu")
apply_group_offloading(text_encoder, onload_device=onload_device, offload_device=offload_device, offload_type="leaf_level")
transformer.enable_group_offload(onload_device=onload_device, offload_device=offload_device, offload_type="leaf_level", use_stream=True)

pipeline = WanPipeline.from_pretrained(
    "Wan-AI/Wan2.1-T2V-14B-Diffusers", transformer=transformer, text_encoder=text_encoder, torch_dtype=torch.bfloat16
)
pipeline.to("cuda")
output = pipeline(prompt="a train", num_frames=81).frames[0]
