from diffusers.pipelines.flux import FluxPipeline
import torch
class W:
    def __init__(self, pipe, n=1):
        self.pipe = pipe.to("cuda")
        self.pipe.vae.enable_tiling()
    def go(self):
        return self.pipe("a lamp")
def main():
    try:
        p = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    except OSError:
        raise SystemExit("log in")
    w = W(p)
    w.go()
if __name__ == "__main__":
    main()
