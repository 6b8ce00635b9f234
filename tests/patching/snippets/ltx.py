import torch
from diffusers import LTXPipeline
from diffusers.utils import export_to_video

pipeline = LTXPipeline.from_pretrained("Lightricks/LTX-Video", torch_dtype=torch.bfloat16)
pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
pipeline.enable_model_cpu_offload()

video = pipeline(prompt="waves", width=768, height=512, num_frames=161, num_inference_steps=50).frames[0]
export_to_video(video, "output.mp4", fps=24)
