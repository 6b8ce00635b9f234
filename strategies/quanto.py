"""optimum-quanto: weights in 8 bits."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import BY_MODULE, Component
from memplan.run import Run
from memplan.strategy import Config

from ._needs import Needs
from ._quantization import Quantization, selection

TYPES = ("int8", "float8")


@dataclass(frozen=True)
class Quanto(Quantization):
    """Weights of linear layers are stored in 8 bits by optimum-quanto, and made anew for each product.

    Half the bfloat16 size. It is for those who have optimum-quanto and not torchao, whose int8_weight_only stores the
    same: diffusers gives up its support of quanto with version 1.

    It costs the time to make each weight on every forward, and each output twice where a layer has a bias.

    Traps: load LoRAs afterwards; it cannot be offloaded in groups.
    """

    weights: str = TYPES[0]

    name: ClassVar[str] = "quanto"
    beaten_by: ClassVar[str] = "int8_weight_only"
    needs: ClassVar[Needs] = Needs("optimum-quanto", "0.2.7", ("cuda", "rocm", "xpu", "mps", "cpu"))
    lookup: ClassVar[str] = BY_MODULE
    breaks: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sequential", "{kind}: accelerate makes quanto's weights anew without their scales"),
        ("group_offload", "{kind}: diffusers moves quanto's weights in groups without their scales"),
        ("disk", "{kind}: diffusers writes no weights of quanto into files"),
    )

    @property
    def format(self) -> str:
        """Bytes of that type, and a scale for each row."""
        return f"quanto {self.weights}"

    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config | None:
        """None: diffusers warns of its config for quanto, which it gives up."""
        return None

    def refuses(self, run: Run) -> str | None:
        """Refuses other types besides."""
        if self.weights not in TYPES:
            return f"weights is {' or '.join(TYPES)}, not {self.weights}"
        return super().refuses(run)

    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Puts a QLinear in the layer's place, and freezes it."""
        from optimum import quanto

        home = layer.weight.device
        made: Any = quanto.QLinear.from_module(layer.to(device), weights=getattr(quanto, f"q{self.weights}"))
        made.freeze()
        part.set_submodule(path, made.to(home).train(layer.training))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A loop over the layers, so that each is converted on the device."""
        return (
            "import torch",
            f"from optimum.quanto import QLinear, q{self.weights}",
            *selection(self.component, self.spare),
            "        home = layer.weight.device",
            f'        made = QLinear.from_module(layer.to("{device}"), weights=q{self.weights})',
            "        made.freeze()",
            f"        pipe.{self.component}.set_submodule(path, made.to(home).train(layer.training))",
        )
