import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.text_encoder.to("cuda:1")
pipe.text_encoder_2.to("cuda:1")
with torch.no_grad():
    embeds, pooled, ids = pipe.encode_prompt(prompt="a dune", prompt_2=None)
# room for the rest
pipe.text_encoder.to("cpu")
pipe.text_encoder_2.to("cpu")
pipe.transformer.to("cuda:1")
pipe.vae.to("cuda:1")
pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled).images[0].save("dune.png")
