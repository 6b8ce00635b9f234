import threading

import torch
from diffusers import StableDiffusionXLPipeline

PIPE = None
LOCK = threading.Lock()


def pipeline():
    global PIPE
    with LOCK:
        if PIPE is None:
            PIPE = StableDiffusionXLPipeline.from_pretrained("models/sdxl", torch_dtype=torch.bfloat16)
            PIPE.to("cuda")
    return PIPE


def work(prompt):
    return pipeline()(prompt).images[0]
