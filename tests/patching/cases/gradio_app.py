import gradio as gr
import torch
from diffusers import StableDiffusionXLPipeline

MODEL = "stabilityai/stable-diffusion-xl-base-1.0"
pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, torch_dtype=torch.bfloat16)
pipe.to("cuda")


def infer(prompt, steps):
    return pipe(prompt=prompt, num_inference_steps=int(steps)).images[0]


with gr.Blocks() as demo:
    prompt = gr.Textbox(label="Prompt")
    steps = gr.Slider(1, 50, value=25)
    output = gr.Image()
    gr.Button("Go").click(infer, [prompt, steps], output)

demo.launch()
