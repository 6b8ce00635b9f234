"""bitsandbytes' ops of linear layers in 8 bits, in the allocations of its kernels.

Without outliers: how many columns of an input hold values beyond the threshold is known when it is there, and the
op has no shape before. Sources: bitsandbytes/backends/{default,cpu,cuda}/ops.py and `MatMul8bitLt` of
autograd/_functions.py, version 0.50.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from memplan.probes.trace.ledger import Ledger

DIVISIBLE = 4
"""cuBLASLt multiplies in 8 bits where the inner dimension is divisible by this."""


def ops(ledger: Ledger, device: str) -> dict[Any, Callable[..., Any]]:
    """What runs on `device`, "cuda" or "cpu", in place of each op; nothing where bitsandbytes is not imported."""
    kernels = _Int8(ledger, device)
    named: dict[str, Callable[..., Any]] = {
        "int8_vectorwise_quant": kernels.quantize,
        "int8_mixed_scaled_mm": kernels.mixed,
        "int8_scaled_mm": kernels.scaled,
    }
    found = ((getattr(torch.ops.bitsandbytes, name, None), kernel) for name, kernel in named.items())
    return {op: kernel for packet, kernel in found if packet for op in (packet, packet.default)}


@dataclass(frozen=True)
class _Int8:
    """The ops of one device kind."""

    ledger: Ledger
    device: str

    def quantize(self, rows: torch.Tensor, threshold: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """(..., K) in float16 to int8, a float32 scale for each row, and the columns with outliers: none."""
        columns = None
        if threshold > 0:
            self.ledger.assume(
                f"no input of bitsandbytes' 8-bit layers is taken to reach {threshold:g}: where values do, their "
                f"columns of the input and of the weight are held once more"
            )
            columns = rows.new_empty(0, dtype=torch.int64)
        if self.device == "cuda":
            scales = rows.new_empty(prod(rows.shape[:-1]), dtype=torch.float32)
            quantized = rows.new_empty(rows.shape, dtype=torch.int8)
            _outliers(rows, threshold)
        else:
            outliers = _outliers(rows, threshold)
            scales = torch.max(rows.abs(), dim=1).values.float()
            quantized = torch.round(rows * (127.0 / scales.unsqueeze(-1))).to(torch.int8)
            del outliers  # until here, as in the kernel
        return quantized, scales, columns

    def mixed(self, rows: torch.Tensor, *operands: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """As `scaled`, with the rows as they came for the columns with outliers: none."""
        held = rows.new_empty(0)
        *matrices, _, bias = operands
        return self.scaled(*matrices, bias=bias, dtype=rows.dtype), held

    def scaled(
        self, a: torch.Tensor, b: torch.Tensor, *scales: torch.Tensor, bias: Any = None, dtype: Any = None
    ) -> torch.Tensor:
        """(..., K) times (N, K), both in int8, to (..., N) in `dtype`."""
        product = self._multiply(a, b)
        flops = 2 * product.numel() * a.shape[-1]
        self.ledger.note("int8_scaled_mm", flops=flops, traffic=a.numel() + b.numel() + 4 * product.numel())
        if self.device == "cuda":
            return _on_gpu(product, bias).to(dtype or torch.float16)
        return _on_cpu(product, scales, bias).to(dtype or torch.float16)

    def _multiply(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if self.device == "cuda":
            out = a.new_empty((*a.shape[:-1], b.shape[0]), dtype=torch.int32)
            return out if a.shape[-1] % DIVISIBLE == 0 else out.copy_(_in_float32(a, b))
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            return torch._int_mm(a.reshape(-1, a.shape[-1]), b.t()).reshape(*a.shape[:-1], b.shape[0])
        return _in_float32(a, b)


def _outliers(rows: torch.Tensor, threshold: float) -> torch.Tensor | None:
    """Which values are beyond the threshold."""
    return rows.abs() >= threshold if threshold > 0 else None


def _on_gpu(product: torch.Tensor, bias: Any) -> torch.Tensor:
    """The product in float16; the kernel adds a bias of that dtype itself."""
    out = product.new_empty(product.shape, dtype=torch.float16)
    return out if bias is None or bias.dtype == torch.float16 else out.add_(bias)


def _on_cpu(product: torch.Tensor, scales: tuple[torch.Tensor, ...], bias: Any) -> torch.Tensor:
    """The product in float32; the scales are those of its rows and of its columns."""
    rows, columns = scales
    flat = product.view(-1, product.shape[-1])
    out = flat * (rows.reshape(-1).unsqueeze(-1) * columns.reshape(-1).unsqueeze(0)) * 6.200124e-05
    if bias is not None:
        out += bias
    return out


def _in_float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(a.float(), b.float().t()).to(torch.int32)
