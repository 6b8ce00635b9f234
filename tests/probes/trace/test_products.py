"""What products of quantized layers hold on CUDA, against the libraries' own code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.products import integer_product
from memplan.probes.trace.tracker import Tracker

SIZES = ((64, 256, 128), (17, 64, 2048), (16, 1024, 64), (1, 64, 64))
"""Rows, columns and features: more rows than 16, and fewer."""


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchao's module, with the product that PyTorch has on CUDA."""

    def out_dtype(op: Any, dtype: torch.dtype, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert b.is_contiguous()
        if a.shape[0] <= 16:
            raise RuntimeError(f"self.size(0) needs to be greater than 16, but got {a.shape[0]}")
        return torch._int_mm(a, b)

    found = pytest.importorskip("torchao.kernel.intmm")
    monkeypatch.setattr(found, "out_dtype", out_dtype)
    return found


def peak_of(product: Callable[..., Any], rows: int, columns: int, features: int) -> int:
    """The most bytes that `product` holds beside its factors, which are nowhere: not on the CPU in any case."""
    a = torch.empty(rows, columns, dtype=torch.int8, device="meta")
    b = torch.empty(features, columns, dtype=torch.int8, device="meta").t()
    ledger = Ledger(1)
    for factor in (a, b):
        ledger.admit(factor, counted=False)
    with Tracker(ledger, "cuda"):
        product(ledger, a, b)
    return max(stretch.peak for stretch in ledger.recording.stretches)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchao_multiplies_as_its_source_does_on_a_gpu(size: tuple[int, int, int], source: Any) -> None:
    made = peak_of(integer_product, *size)
    assert made == peak_of(lambda _, a, b: source.safe_int_mm(a, b), *size)
    rows, columns, features = size
    assert made >= columns * features + 4 * rows * features


@pytest.mark.parametrize("size", [(64, 1030, 128), (64, 1024, 3)], ids=str)
def test_sides_that_cublas_does_not_take_are_multiplied_in_host_memory(size: Any, source: Any) -> None:
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # it copies them to the CPU
        peak_of(lambda _, a, b: source.safe_int_mm(a, b), *size)
    assert peak_of(integer_product, *size) == 4 * size[0] * size[2]
