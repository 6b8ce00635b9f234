import torch as t

import diffusers as d
from diffusers import AutoencoderKL as VAE, BitsAndBytesConfig as Bits
from transformers import (
    T5EncoderModel as T5,
    BitsAndBytesConfig,  # another one
)

bits = Bits(load_in_4bit=True)
vae = VAE.from_pretrained("models/flux", subfolder="vae", torch_dtype=t.bfloat16)
text = T5.from_pretrained("models/flux", subfolder="text_encoder_2", quantization_config=BitsAndBytesConfig(load_in_8bit=True))
pipe = d.FluxPipeline.from_pretrained(
    "models/flux", vae=vae, text_encoder_2=text, quantization_config=bits, torch_dtype=t.bfloat16
).to("cuda")
pipe("a boat").images[0].save("boat.png")
