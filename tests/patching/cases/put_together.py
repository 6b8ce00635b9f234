from diffusers import StableDiffusionPipeline

from parts import scheduler, text_encoder, tokenizer, unet, vae

pipe = StableDiffusionPipeline(vae, text_encoder, tokenizer, unet, scheduler, None, None)
pipe.to("cuda")
