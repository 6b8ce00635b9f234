import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

vae = AutoencoderKL.from_pretrained("models/sd15", subfolder="vae").to("cuda")
tokenizer = CLIPTokenizer.from_pretrained("models/sd15", subfolder="tokenizer")
text_encoder = CLIPTextModel.from_pretrained("models/sd15", subfolder="text_encoder").to("cuda")
unet = UNet2DConditionModel.from_pretrained("models/sd15", subfolder="unet").to("cuda")
scheduler = DDIMScheduler.from_pretrained("models/sd15", subfolder="scheduler")
for t in scheduler.timesteps:
    ...
