from diffusers import ModularPipeline

pipe = ModularPipeline.from_pretrained("models/modular")
pipe.load_components()
