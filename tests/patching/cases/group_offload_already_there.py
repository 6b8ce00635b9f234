import torch
from diffusers import WanPipeline
from diffusers.hooks import apply_group_offloading
from diffusers.utils import export_to_video

pipe = WanPipeline.from_pretrained("models/wan", torch_dtype=torch.bfloat16)
apply_group_offloading(
    pipe.text_encoder,
    onload_device=torch.device("cuda"),
    offload_type="block_level",
    num_blocks_per_group=4,
)
pipe.transformer.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)
pipe.vae.to("cuda")

frames = pipe("a dog running", num_frames=33).frames[0]
export_to_video(frames, "dog.mp4", fps=16)
