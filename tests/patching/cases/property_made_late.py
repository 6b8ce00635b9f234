import diffusers as df, torch
class P:
    def __init__(self): self._pipe = None; self.device = "cuda"
    @property
    def pipe(self):
        if self._pipe is None:
            self._pipe = df.FluxPipeline.from_pretrained(
                "black-forest-labs/FLUX.1-dev",
                torch_dtype=torch.bfloat16).to(self.device)
        return self._pipe
