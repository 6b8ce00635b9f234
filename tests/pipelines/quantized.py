"""Pipelines with components that are quantized in memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


def in_linear_layers(module: torch.nn.Module, make: Callable[[Any], torch.nn.Module]) -> None:
    """Replace each linear layer of `module` by what `make` makes of it."""
    layers = [(path, layer) for path, layer in module.named_modules() if type(layer) is torch.nn.Linear]
    for path, layer in layers:
        owner, _, name = path.rpartition(".")
        module.get_submodule(owner)._modules[name] = make(layer).eval()


def four_bit(layer: Any) -> Any:
    """A layer of bitsandbytes' 4-bit weights, as on a device."""
    nn: Any = pytest.importorskip("bitsandbytes").nn
    sizes = (layer.in_features, layer.out_features, layer.bias is not None)
    made = nn.Linear4bit(*sizes, compute_dtype=layer.weight.dtype, quant_type="nf4")
    made.weight = nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    made.support_avx512bf16_for_cpu = False  # on such a processor the first call packs the weight
    return made.to("cpu")


def eight_bit(layer: Any) -> Any:
    """A layer of bitsandbytes' 8-bit weights, as on a device."""
    nn: Any = pytest.importorskip("bitsandbytes").nn
    sizes = (layer.in_features, layer.out_features, layer.bias is not None)
    made = nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
    made.weight = nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    made.bias = layer.bias
    return made.to("cpu")


def four_bit_parts(pipe: Any) -> None:
    """The transformer in 4 bits."""
    in_linear_layers(pipe.transformer, four_bit)


def eight_bit_parts(pipe: Any) -> None:
    """The transformer and the first text encoder in 8 bits."""
    in_linear_layers(pipe.transformer, eight_bit)
    in_linear_layers(pipe.text_encoder, eight_bit)


def int8_parts(pipe: Any) -> None:
    """The transformer with torchao's int8 weights."""
    quantization: Any = pytest.importorskip("torchao.quantization")
    quantization.quantize_(pipe.transformer, quantization.Int8WeightOnlyConfig())
