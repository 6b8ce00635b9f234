import torch; from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=torch.bfloat16); pipe.to("cuda"); pipe.set_progress_bar_config(disable=True)
pipe("a coin").images[0].save("coin.png")
