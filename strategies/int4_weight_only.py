"""torchao: weights in 4 bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from memplan.run import Run

from .quantizing.torchao import VERSION, Torchao
from .rules.needs import Needs


@dataclass(frozen=True)
class Int4WeightOnly(Torchao):
    """Weights of linear layers are stored in 4 bits in groups of 128, packed for tensor cores.

    About 27 % of the bfloat16 size where layers are wide: columns are padded to multiples of 1024, which small layers
    pay for. Layers stay as they are where their columns are no multiple of 128.

    It costs precision, more than bnb_4bit, and its kernel is made for few rows: those of a text encoder rather than the
    thousands of a denoiser.

    Traps: bfloat16 alone; packing needs the CUDA device; offloaded in groups it cannot be streamed.
    """

    name: ClassVar[str] = "int4_weight_only"
    known_as: ClassVar[tuple[str, ...]] = ("int4", "torchao")
    beaten_by: ClassVar[str] = "bnb_4bit"
    needs: ClassVar[Needs] = Needs("torchao", VERSION, ("cuda",), (8, 0))
    breaks: ClassVar[tuple[tuple[str, str], ...]] = (
        *Torchao.breaks,
        ("stream", "{kind}: torchao's Int4TilePackedTo4dTensor cannot be pinned"),
    )
    multiples: ClassVar[tuple[int, int]] = (128, 1)
    config_class: ClassVar[str] = "Int4WeightOnlyConfig"
    arguments: ClassVar[Mapping[str, Any]] = MappingProxyType({"int4_packing_format": "tile_packed_to_4d"})

    @property
    def format(self) -> str:
        """Half bytes, and a scale and a zero point for each group."""
        return "int4"

    def refuses(self, run: Run) -> str | None:
        """Refuses other dtypes than bfloat16 besides."""
        dtype = run.facts.model.component(self.component).dtype
        if dtype != "bfloat16":
            return f"{self.name} packs weights in bfloat16, and {self.component} is in {dtype}"
        return super().refuses(run)
