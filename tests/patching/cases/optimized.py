import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("models/sd15").to("cuda")
adam = torch.optim.Adam(pipe.unet.parameters())
torch.autograd.grad(pipe.unet(torch.randn(1, 4, 64, 64).cuda(), 1, None).sample.sum(), pipe.unet.conv_in.weight)
adam.step()
