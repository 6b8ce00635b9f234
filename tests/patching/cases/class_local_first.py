import diffusers
import torch


class Model:
	def setup(self):
		pipe = diffusers.StableDiffusionPipeline.from_pretrained("models/sd15", torch_dtype=torch.bfloat16)
		pipe.enable_attention_slicing()
		self.pipe = pipe.to("cuda")

	def predict(self, prompt):
		return self.pipe(prompt).images
