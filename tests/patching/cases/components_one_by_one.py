import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline


class Predictor:
    def setup(self) -> None:
        """Both at once."""
        self.drawing = StableDiffusionXLPipeline.from_pretrained("models/sdxl", torch_dtype=torch.bfloat16)
        self.drawing.to("cuda")
        self.redrawing = StableDiffusionXLImg2ImgPipeline(
            vae=self.drawing.vae,
            text_encoder=self.drawing.text_encoder,
            text_encoder_2=self.drawing.text_encoder_2,
            tokenizer=self.drawing.tokenizer,
            tokenizer_2=self.drawing.tokenizer_2,
            unet=self.drawing.unet,
            scheduler=self.drawing.scheduler,
        )
        self.redrawing.to("cuda")

    @torch.inference_mode()
    def predict(self, prompt: str, image=None):
        pipe = self.redrawing if image else self.drawing
        return pipe(prompt=prompt, image=image).images
