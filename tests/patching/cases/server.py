import io
from contextlib import asynccontextmanager

import torch
from diffusers import StableDiffusionXLPipeline
from fastapi import FastAPI, Response


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.pipe = StableDiffusionXLPipeline.from_pretrained(
        "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.bfloat16
    ).to("cuda:1")
    yield
    del app.state.pipe


app = FastAPI(lifespan=lifespan)


@app.get("/picture")
def picture(prompt: str) -> Response:
    image = app.state.pipe(prompt).images[0]
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")
