"""Makes the dry run choose the kernels of the planned device instead of the CPU's, where the two hold other memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from memplan.facts import ELEMENTWISE, Ops
from memplan.probes.fakes.values import read
from memplan.probes.trace import int8
from memplan.probes.trace.attention import FLASH_SINCE, Attention
from memplan.probes.trace.backward import AttentionWithBackward, rms_norm_with_backward
from memplan.probes.trace.dependent import UNKNOWN, sentence
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.operands import extent
from memplan.probes.trace.work import dtype_of


class Kernels(TorchFunctionMode):
    """Function mode for one device kind, "cuda" or "cpu", and for "cuda" one compute capability.

    It also answers code that wants a fake tensor as an array: with its values where they are known, else with zeros,
    which the ledger then says. In `training` the kernels have backwards, and what those need.
    """

    def __init__(
        self, ledger: Ledger, device: str, capability: tuple[int, int] = FLASH_SINCE, *, training: bool = False
    ) -> None:
        """Kernels of `device`, accounted for in `ledger`."""
        super().__init__()
        self.ledger = ledger
        self._table: dict[Any, Callable[..., Any]] = {torch.Tensor.numpy: self._array, **int8.ops(ledger, device)}
        if device == "cuda":
            attention = AttentionWithBackward if training else Attention
            self._table[F.scaled_dot_product_attention] = attention(ledger, capability)
            rms_norm = rms_norm_with_backward if training else self._rms_norm
            self._table[F.rms_norm] = self._table[torch.rms_norm] = rms_norm
            self._table[F.group_norm] = _group_norm

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace `func` where the device runs another kernel."""
        replacement, kwargs = self._table.get(func), kwargs or {}
        first = next(iter((*args, *kwargs.values())), None)  # diffusers names query, key and value
        if replacement is not None and isinstance(first, FakeTensor):
            return replacement(*args, **kwargs)
        return func(*args, **kwargs)

    def _array(self, tensor: FakeTensor, *args: Any, **kwargs: Any) -> Any:
        known = read(tensor)
        if known is None:
            self.ledger.assume(f"{sentence('numpy', tensor, self.ledger)} is taken as zeros, {UNKNOWN}")
        with _disable_current_modes():
            return (torch.zeros(tensor.shape, dtype=tensor.dtype) if known is None else known.clone()).numpy()

    def _rms_norm(
        self,
        input: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: torch.Tensor | None = None,
        eps: float | None = None,
    ) -> torch.Tensor:
        """What `rms_norm` holds on a CUDA device: the result and one float32 per row, with a weight of the same dtype.

        With another dtype it runs op by op, as on a CPU. Source: `rms_norm_symint` and `_fused_rms_norm_cuda` of
        ATen/native/{layer_norm.cpp,cuda/layer_norm_kernel.cu}.
        """
        if weight is not None and weight.dtype != input.dtype:
            return F.rms_norm(input, list(normalized_shape), weight, eps)
        rows = input.contiguous()
        held = rows.new_empty(rows.shape[: -len(normalized_shape)], dtype=torch.float32)
        out = torch.empty_like(rows)
        self.ledger.note("rms_norm", Ops(ELEMENTWISE, dtype_of([out]), 1, 0, 2 * extent(out)))
        del rows, held
        return out


def _group_norm(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """CUDA devices normalise a channels-first copy; only CPUs keep channels last (ATen/native/group_norm.cpp)."""
    return F.group_norm(input.contiguous(), *args, **kwargs)
