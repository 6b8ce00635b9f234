"""torchao: weights and activations in float8."""

from dataclasses import dataclass
from typing import ClassVar

from .quantizing.torchao import VERSION, Torchao
from .rules.needs import Needs

MI300 = ("gfx940", "gfx941", "gfx942", "gfx950")
"""MI300 and MI350: those that torchao knows (`is_MI300` and `is_MI350` in its utils.py)."""


@dataclass(frozen=True)
class Fp8Dynamic(Torchao):
    """Weights of linear layers are stored in float8, and their inputs rounded to float8 for each product.

    Half the bfloat16 size. The product is computed in float8, which GPUs since Ada and Hopper do at twice the rate of
    bfloat16, and no weight is made anew. Layers stay as they are where a side is no multiple of 16.

    It costs rounding of weights and inputs, and without torch.compile the input in float32 three times while it is
    rounded.

    Traps: load LoRAs afterwards; AMD's consumer cards, RDNA 4 too, are refused by torchao.
    """

    name: ClassVar[str] = "fp8_dynamic"
    known_as: ClassVar[tuple[str, ...]] = ("fp8", "float8", "torchao")
    needs: ClassVar[Needs] = Needs("torchao", VERSION, ("cuda", "rocm", "xpu"), (8, 9), MI300)
    multiples: ClassVar[tuple[int, int]] = (16, 16)
    config_class: ClassVar[str] = "Float8DynamicActivationFloat8WeightConfig"

    @property
    def format(self) -> str:
        """Bytes and one scale; computed in float8."""
        return "float8 dynamic"
