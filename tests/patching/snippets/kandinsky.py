from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline
import torch

pipe_prior = KandinskyV22PriorPipeline.from_pretrained("kandinsky-community/kandinsky-2-2-prior", torch_dtype=torch.bfloat16).to("cuda")
image_emb, zero_image_emb = pipe_prior("a red cat").to_tuple()
pipe = KandinskyV22Pipeline.from_pretrained("kandinsky-community/kandinsky-2-2-decoder", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe(image_embeds=image_emb, negative_image_embeds=zero_image_emb, height=768, width=768).images
image[0].save("cat.png")
