import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter
from diffusers.utils import export_to_gif

# The adapter that makes pictures move
adapter = MotionAdapter.from_pretrained("guoyww/animatediff-motion-adapter-v1-5-2", torch_dtype=torch.bfloat16)
model_id = "SG161222/Realistic_Vision_V5.1_noVAE"
pipe = AnimateDiffPipeline.from_pretrained(model_id, motion_adapter=adapter, torch_dtype=torch.bfloat16)
pipe.scheduler = DDIMScheduler.from_pretrained(model_id, subfolder="scheduler", clip_sample=False)

# Less memory
pipe.enable_vae_slicing()
pipe.enable_model_cpu_offload()

frames = pipe(prompt="a sunset", num_frames=16).frames[0]
export_to_gif(frames, "animation.gif")
