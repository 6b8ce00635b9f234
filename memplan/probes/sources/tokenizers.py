"""A tokenizer for models whose vocabulary is not at hand: the right length, padding and special ids, any words."""

from collections.abc import Mapping
from typing import Any

_PIECES = r"\p{Han}|\p{Hiragana}|\p{Katakana}|\p{Hangul}|\p{L}{1,7}|\p{N}|[^\s\p{L}\p{N}]"
"""What becomes one token: short words, the parts of long ones, single digits, marks and East Asian characters.

English prose gives about 1.3 tokens a word, as the vocabularies of CLIP and T5 do.
"""

_PIECE_ID = 320
"""The id of every piece: an ordinary word in all vocabularies, none of which is smaller."""


def stand_in_tokenizer(config: Mapping[str, Any]) -> Any:
    """A transformers tokenizer with the lengths and special tokens of `config` and one id for all words.

    `special` maps special tokens to ids; `bos`, `eos`, `pad` and `unk` name some of them; `template` shows where they
    go around the text `$A`; `model_max_length` is in tokens; `padding_side` is "right" if not given.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special: dict[str, int] = config["special"]
    core = Tokenizer(models.WordLevel(vocab={"piece": _PIECE_ID, **special}, unk_token="piece"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
    core.post_processor = processors.TemplateProcessing(single=config["template"], special_tokens=list(special.items()))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=config["model_max_length"],
        padding_side=config.get("padding_side", "right"),
        model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens=list(special),
        chat_template=config.get("chat_template"),
        **{f"{role}_token": config[role] for role in ("bos", "eos", "pad", "unk") if role in config},
    )
