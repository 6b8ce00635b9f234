from diffusers import FluxPipeline

show(FluxPipeline.from_pretrained("models/flux").to("cuda")("a tree").images)
