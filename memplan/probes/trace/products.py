"""Products of torchao's and quanto's layers in the allocations that they make on CUDA.

Both libraries ask where tensors are, which is the CPU in a dry run, and some of what they do there depends on the CPU.
Read from the sources of torchao 0.18 and optimum-quanto 0.2.7, not measured.
"""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch._subclasses import FakeTensor

from memplan.facts import MATMUL, Ops
from memplan.probes.trace.ledger import Ledger

TORCHAO = "torchao.quantization.quantize_.workflows.int8.int8_tensor"
"""The module of torchao's int8 weights, which imports what it multiplies with by name."""
QUANTO = "optimum.quanto.library.qbytes_mm"
"""The module of quanto's op that multiplies inputs, which are not quantized themselves, by weights in 8 bits."""
TINYGEMM = "optimum.quanto.tensor.weights.tinygemm.qbits"
"""The module of quanto's 4-bit weights, which takes a fake input for one of quanto's own and makes it float32."""
MULTIPLE = 8
"""Of what both sides of a weight must be a multiple for cuBLAS; torchao multiplies by others in host memory."""
FEW_ROWS = 16
"""`_int_mm` takes more rows than this on CUDA (`_int_mm_out_cuda` in ATen/native/cuda/Blas.cpp)."""


@contextmanager
def products(ledger: Ledger, device: str) -> Generator[None]:
    """On "cuda" fake tensors are multiplied as there; nothing changes of a library that is not imported."""
    found = list(_found(ledger)) if device == "cuda" else []
    originals = [getattr(owner, name) for owner, name, _ in found]
    try:
        for (owner, name, there), original in zip(found, originals, strict=True):
            setattr(owner, name, partial(_product, there, original))
        yield
    finally:
        for (owner, name, _), original in zip(found, originals, strict=True):
            setattr(owner, name, original)


def _found(ledger: Ledger) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Where a library looks for its product, under which name, and what it does on CUDA."""
    if TORCHAO in sys.modules:
        yield sys.modules[TORCHAO], "int_scaled_matmul", partial(_scaled, ledger)
    if QUANTO in sys.modules:
        yield torch.ops.quanto, "qbytes_mm", sys.modules[QUANTO].qbytes_mm
    if TINYGEMM in sys.modules:
        yield sys.modules[TINYGEMM].TinyGemmQBitsLinearFunction, "apply", partial(_packed, ledger)


def _product(there: Callable[..., Any], here: Callable[..., Any], a: torch.Tensor, *others: Any) -> Any:
    return there(a, *others) if isinstance(a, FakeTensor) else here(a, *others)


def _scaled(ledger: Ledger, a: torch.Tensor, b: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """`int_scaled_matmul` of torchao/kernel/intmm.py."""
    return integer_product(ledger, a, b) * scales.expand((a.shape[0], b.shape[1]))


def _packed(ledger: Ledger, given: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
    """`TinyGemmQBitsLinearFunction`: the kernel reads the packed weight, and a bias is added to a copy."""
    features, columns = weight.shape
    product = given.new_empty((*given.shape[:-1], features))
    packed = columns * features // 2 + weight._scale_shift.nbytes
    traffic = packed + (given.numel() + product.numel()) * given.itemsize
    operations = 2 * product.numel() * columns
    ledger.note("int4_mm", Ops(MATMUL, str(given.dtype).removeprefix("torch."), 1, operations, traffic))
    return product if bias is None else product + bias


def integer_product(ledger: Ledger, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(M, K) times (K, N), both in int8, to (M, N) in int32, as `safe_int_mm` of torchao/kernel/intmm.py does it."""
    (rows, columns), features = a.shape, b.shape[1]
    if not (columns % MULTIPLE or features % MULTIPLE):
        b = b.contiguous()
        if rows <= FEW_ROWS:
            return torch.matmul(a.to(torch.float32), b.to(torch.float32)).to(torch.int32)
    product = a.new_empty((rows, features), dtype=torch.int32)
    traffic = a.numel() + b.numel() + 4 * product.numel()
    ledger.note("int_mm", Ops(MATMUL, "int8", 1, 2 * product.numel() * columns, traffic))
    return product
