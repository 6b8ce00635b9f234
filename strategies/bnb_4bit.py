"""bitsandbytes: weights in 4 bits."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import BY_MODULE, Component
from memplan.run import Run
from memplan.strategy import Config

from .quantizing.bnb import bnb_config
from .quantizing.layers import aliases, selection
from .quantizing.quantization import Quantization
from .rules.needs import Needs

TYPES = ("nf4", "fp4")


@dataclass(frozen=True)
class Bnb4bit(Quantization):
    """Weights of linear layers are stored in 4 bits, and each layer makes its weight anew while it runs.

    About 28 % of the bfloat16 size where nearly all weights are in linear layers, as in FLUX; embeddings, convolutions
    and norms stay. "nf4" is for normally distributed weights; "fp4" is less precise. With `double_quant` the scales are
    quantized too: 0.52 in place of 0.56 bytes for each weight.

    It costs the time to make each weight on every forward, and precision: the largest loss of what is offered to those
    who name no format themselves.

    Traps: the T5 encoders' `wo` stays as it is, because T5 casts activations to its dtype; load LoRAs afterwards.
    """

    quant_type: str = TYPES[0]
    double_quant: bool = True

    name: ClassVar[str] = "bnb_4bit"
    known_as: ClassVar[tuple[str, ...]] = ("nf4", "fp4", "4bit", "int4", "bnb", "bitsandbytes", "qlora")
    needs: ClassVar[Needs] = Needs("bitsandbytes", "0.48", ("cuda", "rocm", "xpu", "mps", "cpu"))
    lookup: ClassVar[str] = BY_MODULE
    breaks: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sequential", "{kind}: accelerate loses the scales of 4-bit weights when it moves them"),
        ("group_offload", "{kind}: diffusers moves its 4-bit weights in groups without their scales"),
    )

    @property
    def format(self) -> str:
        """The type of the values, and whether the scales are quantized too."""
        return f"{self.quant_type} nested" if self.double_quant else self.quant_type

    def refuses(self, run: Run) -> str | None:
        """Refuses unknown types besides."""
        if self.quant_type not in TYPES:
            return f"quant_type is {' or '.join(TYPES)}, not {self.quant_type}"
        return super().refuses(run)

    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Puts a Linear4bit in the layer's place; its weight is packed when it comes to the device."""
        from bitsandbytes import nn

        params: Any = nn.Params4bit  # type checkers do not know what it takes
        weight, bias = aliases(layer).values()
        sizes = (layer.in_features, layer.out_features, bias is not None)
        packed: Any = nn.Linear4bit(*sizes, weight.dtype, self.double_quant, self.quant_type, device="meta")
        packed.weight = params(
            weight.data,
            requires_grad=False,
            compress_statistics=self.double_quant,
            quant_type=self.quant_type,
            module=packed,
        )
        packed.bias = bias
        part.set_submodule(path, packed.to(device).to(weight.device).train(layer.training))

    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config:
        """bitsandbytes' config. Its own defaults are fp4 and computing in float32."""
        return bnb_config(
            component.library,
            skip,
            "load_in_4bit=True",
            f'bnb_4bit_quant_type="{self.quant_type}"',
            f"bnb_4bit_use_double_quant={self.double_quant}",
            f"bnb_4bit_compute_dtype=torch.{component.dtype}",
        )

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A loop over the layers; a component that is yet to be loaded takes `config` instead."""
        kind = f'{self.double_quant}, "{self.quant_type}"'
        return (
            "import torch",
            "from bitsandbytes.nn import Linear4bit, Params4bit",
            *selection(self.component, self.spare),
            "        sizes = (layer.in_features, layer.out_features, layer.bias is not None)",
            f'        packed = Linear4bit(*sizes, layer.weight.dtype, {kind}, device="meta")',
            "        packed.weight = Params4bit(",
            "            layer.weight.data, requires_grad=False, module=packed,",
            f'            compress_statistics={self.double_quant}, quant_type="{self.quant_type}",',
            "        )",
            "        packed.bias = layer.bias",
            f'        packed = packed.to("{device}").to(layer.weight.device).train(layer.training)',
            f"        pipe.{self.component}.set_submodule(path, packed)",
        )
