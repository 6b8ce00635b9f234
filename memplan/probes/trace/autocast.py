"""torch.autocast in a dry run: the CPU's own, and what a CUDA device's does otherwise.

Both cast what products and attention are given. A CUDA device computes norms, softmax and powers in float32, which
then is what waits for the backward; the CPU leaves them in the dtype they come in. Weights that ask for gradients are
cast once, and the copies are held until the region ends. Source: aten/src/ATen/autocast_mode.{h,cpp}.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

CPU = "cpu"
"""The kind of device that fake tensors say they are on, whichever is planned for."""
IN_FLOAT = frozenset({
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh",
    "tan", "pow", "__pow__", "__rpow__", "softplus", "layer_norm", "rms_norm", "group_norm", "cosine_similarity",
    "smooth_l1_loss", "l1_loss", "huber_loss", "mse_loss", "cdist", "logsumexp", "interpolate", "normalize",
})  # fmt: skip
"""What a CUDA device computes in float32, by the name of the function (`AT_FORALL_FP32`): it casts what comes in."""
TO_FLOAT = frozenset({"prod", "softmax", "log_softmax", "cumprod", "cumsum", "sum", "norm", "linalg_vector_norm"})
"""What it gives in float32 from what comes in (`AT_FORALL_FP32_SET_OPT_DTYPE`)."""
ATTENTION = F.scaled_dot_product_attention.__name__
"""Cast here, as the dry run puts a kernel of the device in its place."""


def autocasting(dtype: str) -> AbstractContextManager[Any]:
    """The region in which a forward computes in `dtype`, "" for as it is."""
    return torch.autocast(CPU, getattr(torch, dtype)) if dtype else nullcontext()


def rules_of(device: str) -> AbstractContextManager[Any]:
    """What a `device` does otherwise than the CPU, wherever autocast is on; it is entered after the kernels."""
    return nullcontext() if device == CPU else _Rules()


class _Rules(TorchFunctionMode):
    """The rules of a CUDA device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Cast what comes in as the device would."""
        kwargs = kwargs or {}
        if not torch.is_autocast_enabled(CPU):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in IN_FLOAT:
            args, kwargs = _cast((args, kwargs), torch.float32)
        elif name == ATTENTION:
            args, kwargs = _cast((args, kwargs), torch.get_autocast_dtype(CPU))
        elif name in TO_FLOAT and kwargs.get("dtype") is None and _is_low(args, kwargs):
            kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def _cast(values: Any, dtype: torch.dtype) -> Any:
    """Floats of other dtypes in this one; float64 stays."""
    wide = (torch.float64, dtype)
    cast: Callable[[Any], Any] = lambda v: v.to(dtype) if _is_float(v) and v.dtype not in wide else v  # noqa: E731
    return tree_map(cast, values)


def _is_low(args: Any, kwargs: Any) -> bool:
    first: Any = next(iter((*args, *kwargs.values())), None)
    return _is_float(first) and first.dtype.itemsize < torch.float32.itemsize


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
