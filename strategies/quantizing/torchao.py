"""What the formats of torchao share: a config, and one call that converts a layer in place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from memplan.facts import BY_WEIGHT, Component
from memplan.strategy import Config

from ..rules.needs import Needs
from .layers import selection
from .quantization import Quantization

VERSION = "0.16"
"""The first whose int8 and float8 weights keep a scale for each row as this planner reckons."""


@dataclass(frozen=True)
class Torchao(Quantization):
    """Converts with torchao's quantize_ and the config class `config_class`, which is given `arguments`."""

    needs: ClassVar[Needs] = Needs("torchao", VERSION, ("cuda", "rocm", "xpu", "cpu"))
    lookup: ClassVar[str] = BY_WEIGHT
    breaks: ClassVar[tuple[tuple[str, str], ...]] = (
        ("disk", "{kind}: diffusers writes no weights of torchao into files"),
    )
    config_class: ClassVar[str]
    arguments: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def _value(self) -> str:
        """The config as code."""
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.arguments.items())
        return f"{self.config_class}({given})"

    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Gives the layer a weight of torchao's; the layer stays the same."""
        from torchao import quantization

        home = layer.weight.device
        try:
            quantization.quantize_(layer.to(device), getattr(quantization, self.config_class)(**self.arguments))
        finally:
            layer.to(home)

    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config:
        """torchao's config, wrapped in that of the component's library."""
        left = f", modules_to_not_convert={list(skip)}" if skip else ""
        return Config(
            (f"import {component.library}", f"from torchao.quantization import {self.config_class}"),
            f"{component.library}.TorchAoConfig({self._value}{left})",
        )

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A loop over the layers, so that each is converted on the device."""
        return (
            "import torch",
            f"from torchao.quantization import {self.config_class}, quantize_",
            *selection(self.component, self.spare),
            "        home = layer.weight.device",
            f'        quantize_(layer.to("{device}"), {self._value})',
            "        layer.to(home)",
        )
