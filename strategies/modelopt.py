"""NVIDIA ModelOpt: weights in 8 or in 4 bits."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from types import MappingProxyType
from typing import Any, ClassVar

from memplan.facts import BY_MODULE, Component
from memplan.run import Run
from memplan.strategy import Config, Undo

from .quantizing.layers import selection, twin
from .quantizing.quantization import Quantization
from .rules.needs import Needs

QUANTIZERS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "int8": {"num_bits": 8, "axis": 0},
    "int4": {"num_bits": 4, "block_sizes": {-1: 128}},
    "nvfp4": {"num_bits": (2, 1), "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": (4, 3)}},
})  # fmt: skip
"""What ModelOpt's quantizers of weights are given."""
BLOCKS: Mapping[str, int] = MappingProxyType({"int8": 1, "int4": 128, "nvfp4": 16})
"""The columns that share a scale in blocks; it packs whole ones."""
NOT_OFFERED: Mapping[str, str] = MappingProxyType({
    "fp8": "a component whose weights ModelOpt has in float8 claims float8 for its dtype, and pipelines cast to that",
    "nf4": "ModelOpt 0.47 cannot make a weight of more than 16384 elements from nf4 again",
})  # fmt: skip


@dataclass(frozen=True)
class ModelOpt(Quantization):
    """Weights of linear layers are stored in 8 or 4 bits by NVIDIA ModelOpt, and made anew for each product.

    Half the bfloat16 size with weights=int8, which is the default; 27 % with int4 in blocks of 128, and 28 % with nvfp4
    in blocks of 16, which is the more precise. Layers stay as they are where their columns are no multiple of that. It
    is for those who have ModelOpt alone: torchao's int8_weight_only and bnb_4bit store as little and make less.

    It costs the time to make each weight on every forward by ordinary operations: 2 times the weight in full for a
    moment with int8, 6 times with int4, 7 times with nvfp4.

    Traps: load LoRAs afterwards; offloaded in groups it cannot be streamed. ModelOpt saves nothing until mtq.compress
    is called. With version 0.47 diffusers 0.42 cannot make its own config for ModelOpt, and leaves weights as they are
    where it is given one. Products in float8 and nvfp4 need calibrated inputs and are not offered.
    """

    weights: str = "int8"

    name: ClassVar[str] = "modelopt"
    known_as: ClassVar[tuple[str, ...]] = ("nvfp4",)
    beaten_by: ClassVar[str] = "int8_weight_only"
    needs: ClassVar[Needs] = Needs("nvidia-modelopt", "0.47", ("cuda", "cpu"))
    lookup: ClassVar[str] = BY_MODULE
    breaks: ClassVar[tuple[tuple[str, str], ...]] = (
        ("sequential", "{kind}: accelerate cannot replace ModelOpt's weights"),
        ("stream", "{kind}: diffusers' streams leave ModelOpt's scales, which are buffers, on the device"),
    )

    @property
    def format(self) -> str:
        """Values of that type, with a scale for each row or block and the magnitude that it was made from."""
        return f"modelopt {self.weights}"

    @property
    def sides(self) -> tuple[int, int]:
        """Whole blocks."""
        return BLOCKS.get(self.weights, 1), 1

    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config | None:
        """None: diffusers' NVIDIAModelOptConfig raises TypeError, and its loader compresses nothing."""
        return None

    def refuses(self, run: Run) -> str | None:
        """Refuses other types besides, and says why for those that ModelOpt has and this does not offer."""
        if self.weights not in QUANTIZERS:
            *most, last = QUANTIZERS
            reason = f": {NOT_OFFERED[self.weights]}" if self.weights in NOT_OFFERED else ""
            return f"weights is {', '.join(most)} or {last}, not {self.weights}{reason}"
        return super().refuses(run)

    @property
    def _config(self) -> dict[str, Any]:
        """Every quantizer off, but that of weights."""
        off = {"quantizer_name": "*", "enable": False}
        on = {"quantizer_name": "*weight_quantizer", "cfg": dict(QUANTIZERS[self.weights])}
        return {"quant_cfg": [off, on], "algorithm": "max"}

    def apply(self, pipe: Any, device: str) -> Undo:
        """As every quantizer's, with the library imported first, from a thread.

        It keeps errors of its own optional imports, and with them whatever the functions that imported it still hold.
        """
        with ThreadPoolExecutor(1) as thread:
            thread.submit(import_module, "modelopt.torch.quantization").result()
        return super().apply(pipe, device)

    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Puts a layer of ModelOpt's in the layer's place, which is left as it was.

        ModelOpt compresses only what has a parent. It is silenced because it counts its quantizers on the console.
        """
        import modelopt.torch.quantization as mtq  # type: ignore[import-untyped]
        import torch

        parent = torch.nn.Sequential(twin(layer, device))
        with redirect_stdout(StringIO()):
            mtq.quantize(parent, self._config)
        mtq.compress(parent)
        part.set_submodule(path, parent[0].to(layer.weight.device).train(layer.training))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A loop over the layers, so that each is converted on the device."""
        off, on = (repr(entry).replace("'", '"') for entry in self._config["quant_cfg"])
        return (
            "import modelopt.torch.quantization as mtq",
            "import torch",
            "config = {",
            '    "quant_cfg": [',
            f"        {off},",
            f"        {on},",
            "    ],",
            '    "algorithm": "max",',
            "}",
            *selection(self.component, self.spare, self.sides),
            "        sizes = (layer.in_features, layer.out_features, layer.bias is not None)",
            '        twin = torch.nn.Linear(*sizes, device="meta")',
            f'        twin.weight = torch.nn.Parameter(layer.weight.data.to("{device}"), requires_grad=False)',
            "        twin.bias = layer.bias",
            "        parent = torch.nn.Sequential(twin)",
            "        mtq.quantize(parent, config)",
            "        mtq.compress(parent)",
            "        made = parent[0].to(layer.weight.device).train(layer.training)",
            f"        pipe.{self.component}.set_submodule(path, made)",
        )
