"""torchao: weights in float8 with a scale for each row."""

from dataclasses import dataclass
from typing import ClassVar

from .quantizing.torchao import Torchao


@dataclass(frozen=True)
class Fp8WeightOnly(Torchao):
    """Weights of linear layers are stored in float8 with a scale for each row, and made anew for each product.

    Half the bfloat16 size. Unlike layerwise_casting it scales each row, which weights far from 1 need.

    It costs the time to make each weight on every forward, ten times its stored bytes for a moment, and precision:
    int8_weight_only is as large, three times as precise and makes its weights with less.

    Traps: load LoRAs afterwards.
    """

    name: ClassVar[str] = "fp8_weight_only"
    known_as: ClassVar[tuple[str, ...]] = ("fp8", "float8", "torchao")
    beaten_by: ClassVar[str] = "int8_weight_only"
    config_class: ClassVar[str] = "Float8WeightOnlyConfig"

    @property
    def format(self) -> str:
        """Bytes, and a scale for each row."""
        return "float8"
