import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux", torch_dtype=torch.bfloat16)
pipe.to("cuda")
vae = pipe.vae
vae.enable_tiling()  # for large pictures
second, text = pipe.text_encoder_2, "a lighthouse"
second.cuda()
unet = denoiser = pipe.transformer
denoiser = torch.compile(denoiser)
denoiser.to(memory_format=torch.channels_last)
text_encoder = pipe.text_encoder.to("cuda")
print(sum(p.numel() for p in vae.parameters()))
pipe(text).images[0].save("lighthouse.png")
