def generate(prompt, steps=30):
    """Imports late, so that the command line starts quickly."""
    import torch
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    pipe = pipe.to("cuda")

    return pipe(prompt, num_inference_steps=steps).images[0]


if __name__ == "__main__":
    generate("a swan").save("swan.png")
