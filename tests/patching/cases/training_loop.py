import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("models/sd15").to("cuda")
optimizer = torch.optim.AdamW(pipe.unet.parameters(), lr=1e-5)
for batch in batches():
    loss = loss_of(pipe, batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
