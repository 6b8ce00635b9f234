from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("models/flux")


def generate(prompt):
    pipe.to("cuda")
    images = pipe(prompt).images
    pipe.to("cpu")
    return images
