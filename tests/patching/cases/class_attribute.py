import torch
from diffusers import FluxPipeline


class Painter:
    def __init__(self, model="black-forest-labs/FLUX.1-dev"):
        # The weights are gated: log in first.
        self.pipe = FluxPipeline.from_pretrained(model, torch_dtype=torch.bfloat16)
        self.pipe.to("cuda")
        self.count = 0

    def paint(self, prompt):
        self.count += 1
        return self.pipe(prompt, num_inference_steps=28).images[0]


Painter().paint("a harbour").save("harbour.png")
