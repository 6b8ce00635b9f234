"""What the families share: how big things are, and the text encoders."""

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

VOCAB = 512  # more than the tokenizer's 260 entries
TEXT_TOKENS = 32  # max_sequence_length of every call that has one
FRAMES = 9  # of every video: more than one chunk for each of the video VAEs


@dataclass(frozen=True)
class Size:
    """How big things are: `levels` are the channels of an image VAE, `video_base` is a video VAE's first."""

    layers: int
    heads: int
    head_dim: int
    text: int
    levels: tuple[int, ...]
    unet: tuple[int, int]
    pixels: int
    video_base: int
    video_pixels: int

    @property
    def width(self) -> int:
        """Channels of a transformer."""
        return self.heads * self.head_dim

    @property
    def latent(self) -> int:
        """Height and width of an image in the latent space."""
        return self.pixels // 2 ** (len(self.levels) - 1)


SIZES = {
    "tiny": Size(
        layers=3, heads=2, head_dim=16, text=32, levels=(8, 16), unet=(16, 32), pixels=32,
        video_base=8, video_pixels=32,
    ),
    "medium": Size(
        layers=4, heads=8, head_dim=64, text=256, levels=(32, 64, 128, 128), unet=(128, 256), pixels=512,
        video_base=16, video_pixels=256,
    ),
}  # fmt: skip


CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{{ c.get('text', '') }}{% endfor %}{% endif %}\n{% endfor %}"
)
"""How a conversation is written down for a language model."""


def flow(**settings: Any) -> Any:
    """The scheduler of most transformers."""
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def tokenizer(length: int, side: str = "right") -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer, built in memory."""
    specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(specials + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, padding_side=side, chat_template=CHAT,
        pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip


def clip(size: Size, projection: bool = False) -> torch.nn.Module:
    """A CLIP text encoder."""
    config = transformers.CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=size.text, intermediate_size=4 * size.text, projection_dim=size.text,
        num_hidden_layers=size.layers, num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def t5(size: Size, width: int | None = None, kind: str = "T5") -> torch.nn.Module:
    """A T5 encoder, or with kind "UMT5" its multilingual sibling."""
    d_model = width or size.text
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCAB, d_model=d_model, d_kv=d_model // 4, d_ff=2 * d_model, num_layers=size.layers, num_heads=4,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
        is_encoder_decoder=False,
    )  # fmt: skip
    return getattr(transformers, f"{kind}EncoderModel")(config)
