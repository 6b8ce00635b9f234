"""torchao: weights and activations in 8 bits."""

from dataclasses import dataclass
from typing import ClassVar

from .quantizing.torchao import VERSION, Torchao
from .rules.needs import Needs


@dataclass(frozen=True)
class Int8Dynamic(Torchao):
    """Weights of linear layers are stored in 8 bits, and their inputs rounded to 8 bits for each product.

    Half the bfloat16 size, as with int8_weight_only. The product is computed in integers, and no weight is made anew.

    It costs rounding of the inputs, and without torch.compile much memory beside each product: the input in float32
    twice, the product in 32 bits and in float32.

    Traps: load LoRAs afterwards; products of integers need the compute capability below.
    """

    name: ClassVar[str] = "int8_dynamic"
    known_as: ClassVar[tuple[str, ...]] = ("int8", "w8a8", "torchao")
    needs: ClassVar[Needs] = Needs("torchao", VERSION, ("cuda", "rocm", "xpu", "cpu"), (7, 5))
    config_class: ClassVar[str] = "Int8DynamicActivationInt8WeightConfig"

    @property
    def format(self) -> str:
        """Bytes, and a scale and a zero point for each row; computed in integers."""
        return "int8 dynamic"
