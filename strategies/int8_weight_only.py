"""torchao: weights in 8 bits."""

from dataclasses import dataclass
from typing import ClassVar

from .quantizing.torchao import Torchao


@dataclass(frozen=True)
class Int8WeightOnly(Torchao):
    """Weights of linear layers are stored in 8 bits with a scale for each row, and made anew for each product.

    Half the bfloat16 size where nearly all weights are in linear layers, and the most precise of the formats in 8 bits.
    It needs torchao, and no special hardware. Offloading moves half the bytes.

    It costs the time to make each weight in the compute dtype on every forward, and each output twice for a moment.

    Traps: load LoRAs afterwards.
    """

    name: ClassVar[str] = "int8_weight_only"
    known_as: ClassVar[tuple[str, ...]] = ("int8", "w8a16", "torchao")
    config_class: ClassVar[str] = "Int8WeightOnlyConfig"

    @property
    def format(self) -> str:
        """Bytes, and a scale and a zero point for each row."""
        return "int8"
