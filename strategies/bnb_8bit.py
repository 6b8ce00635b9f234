"""bitsandbytes: weights and activations in 8 bits."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import BY_MODULE, Component
from memplan.strategy import Config

from .quantizing.bnb import bnb_config
from .quantizing.layers import aliases, selection
from .quantizing.quantization import Quantization
from .rules.needs import Needs

THRESHOLD = 6.0
"""Columns of the input with a larger value are computed in half precision: the library's default for models."""


@dataclass(frozen=True)
class Bnb8bit(Quantization):
    """Weights of linear layers are stored in 8 bits, and their inputs rounded to 8 bits but for outliers.

    Half the bfloat16 size where nearly all weights are in linear layers. Columns of the input with values above 6 are
    computed in half precision, which large language models need.

    It costs rounding of the inputs, and the time to look for outliers and to wait for what is found, which is not
    predicted: the seconds shown are those of its bytes alone.

    Traps: the T5 encoders' `wo` stays as it is; layers keep references to their weights, so that offloading
    would not free them.
    """

    name: ClassVar[str] = "bnb_8bit"
    known_as: ClassVar[tuple[str, ...]] = ("llm_int8", "8bit", "bnb", "bitsandbytes")
    beaten_by: ClassVar[str] = "int8_dynamic"
    opt_in: ClassVar[str] = "its layers wait for the CPU, and by how much that slows them is not predicted"
    needs: ClassVar[Needs] = Needs("bitsandbytes", "0.48", ("cuda", "rocm", "xpu", "cpu"), (7, 5))
    lookup: ClassVar[str] = BY_MODULE
    breaks: ClassVar[tuple[tuple[str, str], ...]] = (
        ("set_aside", "{kind}: its 8-bit layers are on the device from when they are made"),
        ("sequential", "{kind}: its 8-bit layers keep references to weights that have been moved"),
        ("model_offload", "{kind}: its 8-bit layers keep references to weights that have been moved"),
        ("group_offload", "{kind}: its 8-bit layers keep references to weights that have been moved"),
    )

    @property
    def format(self) -> str:
        """Bytes, and a scale for each row."""
        return "bnb int8"

    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Puts a Linear8bitLt in the layer's place; its weight is rounded when it comes to the device, and stays there.

        Moved back it would be in memory twice: the layer's own reference to it stays behind.
        """
        from bitsandbytes import nn

        params: Any = nn.Int8Params  # type checkers do not know what it takes
        weight, bias = aliases(layer).values()
        sizes = (layer.in_features, layer.out_features, bias is not None)
        packed: Any = nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=THRESHOLD, device="meta")
        packed.weight = params(weight.data.cpu(), requires_grad=False, has_fp16_weights=False)
        packed.bias = bias
        part.set_submodule(path, packed.to(device).train(layer.training))

    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config:
        """bitsandbytes' config, which without its flag means 4 bits."""
        return bnb_config(component.library, skip, "load_in_8bit=True", f"llm_int8_threshold={THRESHOLD}")

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A loop over the layers; a component that is yet to be loaded takes `config` instead."""
        return (
            "import torch",
            "from bitsandbytes.nn import Int8Params, Linear8bitLt",
            *selection(self.component, self.spare),
            "        sizes = (layer.in_features, layer.out_features, layer.bias is not None)",
            f'        packed = Linear8bitLt(*sizes, has_fp16_weights=False, threshold={THRESHOLD}, device="meta")',
            "        packed.weight = Int8Params(layer.weight.data.cpu(), requires_grad=False, has_fp16_weights=False)",
            "        packed.bias = layer.bias",
            f'        packed = packed.to("{device}").train(layer.training)',
            f"        pipe.{self.component}.set_submodule(path, packed)",
        )
