"""Fits a pipeline that is in memory already to this machine, runs it, and gives it back as it was."""

# diffusers names one class where it takes many.
# pyright: reportArgumentType=false

import logging
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import memplan


def small_stable_diffusion() -> Any:
    """A StableDiffusionPipeline with random weights; yours comes from from_pretrained()."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend: Any = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=77, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    clip = transformers.CLIPTextConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    unet: dict[str, Any] = {
        "sample_size": 32, "block_out_channels": (128, 256), "layers_per_block": 1, "cross_attention_dim": 64,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    pipe: Any = diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(**unet),
        vae=diffusers.AutoencoderKL(sample_size=64, block_out_channels=(512,), latent_channels=4),
        text_encoder=transformers.CLIPTextModel(clip).eval(), tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    """Plan, apply, generate, undo."""
    logging.disable(logging.WARNING)  # what diffusers says of missing extras
    here = torch.cuda.is_available()
    target = memplan.Target() if here else memplan.Target(vram=0.2, ram=8)  # no GPU: a card too small is made up
    pipe = small_stable_diffusion()
    call: dict[str, Any] = {"prompt": "a small dog", "height": 32, "width": 32, "num_inference_steps": 2}

    applied = memplan.auto_optimize(pipe, prefer="quality", target=target, device="cuda" if here else "cpu", **call)
    print("applied:", *applied.strategies)
    print("picture:", pipe(**call).images[0].size)
    applied.undo()
    print("undone: the pipeline is as it was")


if __name__ == "__main__":
    main()
