"""Gives fake tensors the strides that PyTorch's kernels give real ones.

Fake tensors normalise the stride of a dimension of size one; kernels do not, and choose a memory format by it: after
the attention of a VAE a batch of one stays channels-first where a batch of two becomes channels-last.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

IMAGE_ROWS = 3
"""Dimensions from which a tensor can be an image, if only as rows of pixels."""


def corrected(func: Any, args: Any, kwargs: Any, out: Any, inputs: list[torch.Tensor]) -> Any:
    """`out`, re-strided where the op's own meta kernel gives other strides; `inputs` are the tensors among `args`.

    A convolution's meta kernel always gives channels-first images; its fake kernel chooses the format by the backend.
    """
    if not isinstance(out, torch.Tensor) or 1 not in out.shape or not any(_unusual(t) for t in inputs):
        return out
    if func is torch.ops.aten.convolution.default:
        return out
    try:
        with _disable_current_modes():
            truth = func(*_operands(func, args), **tree_map(_meta, kwargs))
    except (RuntimeError, NotImplementedError):
        return out  # the op has no meta kernel of its own
    if truth.stride() == out.stride() or truth.shape != out.shape:
        return out
    return out.as_strided(truth.shape, truth.stride(), out.storage_offset())


def _unusual(tensor: torch.Tensor) -> bool:
    return tensor.dim() >= IMAGE_ROWS and not tensor.is_contiguous()


def _operands(func: Any, args: Any) -> Iterator[Any]:
    """`args` on the meta device. A number in a tensor's place would make meta kernels normalise strides as well."""
    for value, argument in zip(args, func._schema.arguments, strict=False):
        a_tensor = isinstance(argument.type, torch.TensorType) and isinstance(value, int | float)
        yield torch.empty((), device="meta") if a_tensor else tree_map(_meta, value)


def _meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return torch.device("meta") if isinstance(value, torch.device) else value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
