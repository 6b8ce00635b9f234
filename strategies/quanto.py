"""optimum-quanto: weights in 8 or in 4 bits."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import BY_MODULE, Component
from memplan.run import Run
from memplan.strategy import Config

from .quantizing.layers import selection, twin
from .quantizing.quantization import Quantization
from .rules.needs import Needs
from .rules.refusals import no_dtype

FOUR_BIT = "int4"
TYPES = ("int8", "float8", FOUR_BIT)
GROUP = 128
"""The weights of a row that share a scale in 4 bits; PyTorch's kernel knows no others of quanto's groups."""
PACKS = Needs("optimum-quanto", "0.2.7", ("cuda", "cpu"), (8, 0))
"""What PyTorch's kernel for 4 bits needs."""


@dataclass(frozen=True)
class Quanto(Quantization):
    """Weights of linear layers are stored in 8 or 4 bits by optimum-quanto.

    Half the bfloat16 size with weights=int8, which is the default, or float8; each weight is made anew for each
    product. It is for those who have optimum-quanto and not torchao, whose int8_weight_only stores the same: diffusers
    gives up its support of quanto with version 1. With weights=int4 it is 27 % of it, in groups of 128 that PyTorch's
    own kernel reads; layers stay as they are where their columns are no multiple of 128 or their rows none of 16.

    It costs the time to make each weight on every forward, and each output twice where a layer has a bias. Four bits
    cost precision, more than bnb_4bit, and their kernel is made for few rows.

    Traps: load LoRAs afterwards; it cannot be offloaded in groups. In 4 bits it is bfloat16 alone, packed for one
    device, and stays there.
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
        """Values of that type, and a scale for each row or group."""
        return f"quanto {self.weights}"

    @property
    def sides(self) -> tuple[int, int]:
        """In 4 bits whole groups, and rows as PyTorch packs them."""
        return (GROUP, 16) if self.weights == FOUR_BIT else (1, 1)

    @property
    def excluded(self) -> tuple[tuple[str, str], ...]:
        """In 4 bits also what moves whole components: each move unpacks every weight and packs it anew."""
        packed = "{kind}: quanto's 4-bit layers are packed for the device on which they are made, and stay there"
        moved = ("set_aside", packed), ("model_offload", packed)
        return (*self.breaks, *moved) if self.weights == FOUR_BIT else self.breaks

    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config | None:
        """None: diffusers warns of its config for quanto, which it gives up."""
        return None

    def refuses(self, run: Run) -> str | None:
        """Refuses other types besides, and for 4 bits other dtypes than bfloat16 and devices without their kernel."""
        if self.weights not in TYPES:
            return f"weights is {', '.join(TYPES[:-1])} or {TYPES[-1]}, not {self.weights}"
        dtype = run.facts.model.component(self.component).dtype
        if self.weights == FOUR_BIT and dtype != "bfloat16":
            return f"weights={FOUR_BIT} is packed for a kernel in bfloat16, and {self.component} is in {dtype}"
        lacking = PACKS.lacking(run.facts.machine, f"weights={FOUR_BIT}") if self.weights == FOUR_BIT else None
        lacking = lacking or (no_dtype(run, "float8_e4m3fn", self.name) if self.weights == "float8" else None)
        return lacking or super().refuses(run) or self._strided(run, dtype)

    def _strided(self, run: Run, dtype: str) -> str | None:
        """The sentence for a VAE on the CPU: its attention gives layers inputs with channels first."""
        gpu, calls = run.facts.machine.gpu, run.facts.trace.calls
        vae = any(call.component == self.component and call.method != "forward" for call in calls)
        if vae and self.weights == "int8" and dtype == "bfloat16" and gpu is not None and gpu.kind == "cpu":
            return (
                f"{self.name}: PyTorch's kernel for bytes on a CPU, which quanto calls in bfloat16, does not take the "
                f"transposed inputs of attention in {self.component}: weights=float8 does"
            )
        return None

    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Puts a QLinear in the layer's place, which is left as it was; in 4 bits it stays on the device."""
        from optimum import quanto

        home = device if self.weights == FOUR_BIT else layer.weight.device
        made: Any = quanto.QLinear.from_module(twin(layer, device), weights=getattr(quanto, f"q{self.weights}"))
        if self.weights == FOUR_BIT:
            made.weight_group_size = GROUP  # quanto leaves rows of a single group ungrouped, and that kernel out
        made.freeze()
        part.set_submodule(path, made.to(home).train(layer.training))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A loop over the layers, so that each is converted on the device."""
        four_bit = self.weights == FOUR_BIT
        home = f'"{device}"' if four_bit else "layer.weight.device"
        return (
            "import torch",
            f"from optimum.quanto import QLinear, q{self.weights}",
            *selection(self.component, self.spare, self.sides),
            f"        home = {home}",
            f'        made = QLinear.from_module(layer.to("{device}"), weights=q{self.weights})',
            *([f"        made.weight_group_size = {GROUP}"] if four_bit else []),
            "        made.freeze()",
            f"        pipe.{self.component}.set_submodule(path, made.to(home).train(layer.training))",
        )
