"""Bytes an op holds only while it runs, beside its inputs and outputs: a small model by op family, shape and device."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch

HALF = (torch.float16, torch.bfloat16)
SPLIT_ABOVE = 2**31 - 1
"""PyTorch hands cuDNN at most this many elements at once (`split_batch_dim_to_32bit_out` of cudnn/ConvShared)."""
SPLIT_TO = 2**29
"""Elements of the batches into which a larger convolution is split there."""


def workspace(func: Any, args: Any, outputs: list[torch.Tensor], device: str) -> int:
    """Workspace in bytes of op `func` called with `args`, having written `outputs`, on "cuda" or "cpu"."""
    rule = _RULES.get(str(func))
    return rule(args, outputs[0], device) if rule else 0


def _convolution(args: Any, out: torch.Tensor, device: str) -> int:
    return cudnn_workspace(args, out) if device == "cuda" else cpu_workspace(args, out)


def _attention(args: Any, out: torch.Tensor, device: str) -> int:
    return cpu_attention_workspace(args[0], args[1])


def _layer_norm(args: Any, out: torch.Tensor, device: str) -> int:
    return 0 if args[0].is_contiguous() else size_of(args[0])


def _safe_softmax(args: Any, out: torch.Tensor, device: str) -> int:
    """One boolean for each score, and for each row of them."""
    return args[0].numel() + args[0][..., 0].numel()


def promotion_workspace(args: Any, out: torch.Tensor, device: str) -> int:
    """What arithmetic holds on a CPU: each tensor that is not of the dtype it is done in, once more in that.

    A GPU's kernels cast element by element. Source: `compute_types` of ATen/TensorIterator.cpp.
    """
    if device == "cuda":
        return 0
    inputs = [arg for arg in args[:2] if isinstance(arg, torch.Tensor)]
    common = torch.result_type(*args[:2]) if out is args[0] else out.dtype
    return sum(t.numel() * common.itemsize for t in (*inputs, out) if t.dtype != common)


def four_bit_workspace(args: Any, out: torch.Tensor, device: str) -> int:
    """What a linear layer of bitsandbytes' 4-bit weights holds: the weight in the input's dtype.

    Where the scales are quantized too they are made in float32, on a CUDA device once more with their offset. There a
    kernel without any of it does the work for up to 4 rows; for 5 to 1536 it does so on some cards, and the weight is
    counted for all of them. Source: `_dequant_linear_fallback` and `_gemm_4bit_use_custom_cuda` of
    bitsandbytes/backends/cuda/ops.py, `_gemm_4bit_default_impl` of backends/default/ops.py.
    """
    rows, _, shape, scales, block = args[:5]
    on_gpu = device == "cuda"
    if on_gpu and rows.numel() // rows.shape[-1] <= _FEW_ROWS:
        return 0
    number = -(-prod(shape) // block)
    nested = scales.numel() < number
    return prod(shape) * int(rows.element_size()) + (4 * number * (2 if on_gpu else 1) if nested else 0)


_FEW_ROWS = 4
"""`_GEMM_4BIT_CUSTOM_FLOOR_M` there."""


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of the elements of `tensor`, its storage aside."""
    return tensor.numel() * tensor.element_size()


def cudnn_workspace(args: Any, out: torch.Tensor) -> int:
    """What a convolution holds on a CUDA device beside image, filter and result.

    PyTorch makes image and filter contiguous in the format it chose. In half precision cuDNN's kernels want channels
    last: a channels-first image goes in, and its result comes out, through a copy; a channels-last one needs none. In
    float32 one copy of the result is held in either format. Read off the published decode peaks of FLUX.1-dev in
    bfloat16 at batch 1, 4 and 16 and of SDXL in float32 at batch 1 and 4; not yet measured by single operators.
    """
    image, filters = args[0], args[1]
    last = channels_last(image) or channels_last(filters)
    fits = channels_last(image) if last else image.is_contiguous()
    half = image.dtype in HALF
    filtered = not channels_last(filters) if last else half
    held = (0 if fits else size_of(image)) + (size_of(filters) if filtered else 0)
    if half and last:
        return held
    copies = size_of(out) + (size_of(image) if half else 0)
    return held + int(copies * _share(image, out))


def _share(image: torch.Tensor, out: torch.Tensor) -> float:
    """The part of a batch that one call of cuDNN works on."""
    batch, largest = image.shape[0], max(image.numel(), out.numel())
    return 1.0 if largest <= SPLIT_ABOVE else min(1.0, max(SPLIT_TO // (largest // batch), 1) / batch)


def channels_last(tensor: torch.Tensor) -> bool:
    """Whether PyTorch takes an image or volume for channels-last: `is_channels_last_strides` of c10/MemoryFormat.

    Unlike `is_contiguous(memory_format=…)` it looks at the stride of a batch of one.
    """
    if tensor.dim() not in (4, 5) or tensor.stride(1) == 0:
        return False
    low = 0
    for d in (1, *range(tensor.dim() - 1, 1, -1), 0):
        size, stride = tensor.shape[d], tensor.stride(d)
        if size == 0 or stride < low or (d == 0 and low == tensor.stride(1)):
            return False
        low = stride * size if size > 1 else stride
    return True


def cpu_workspace(args: Any, out: torch.Tensor) -> int:
    """What a CPU convolution holds: oneDNN's blocked copies, or the columns of the plain algorithm.

    Measured with torch.profiler on single convolutions (torch 2.13, oneDNN 3.12): a channels-first image is copied
    into blocks of channels, as is the filter, and the result is copied back out of them; a channels-last one only
    needs its filter in blocks.
    """
    image, filters = args[0], args[1]
    if _backend(args) not in _ONEDNN:
        return _plain_workspace(image, filters, args[8], out)
    if not image.is_contiguous():
        return 2 * size_of(filters)
    result = blocked(out)
    source = 0 if image.shape[1] < _block() else blocked(image)  # fewer channels are read as they are
    return max(source + size_of(filters) + result - size_of(out), result)


def _plain_workspace(image: torch.Tensor, filters: torch.Tensor, groups: int, out: torch.Tensor) -> int:
    """What the plain algorithm holds: columns, and of groups each one's image and the results until they are joined.

    Sources: `_convolution` and `thnn_conv_use_channels_last` of ATen/native/Convolution.cpp and ConvUtils.h.
    """
    last = image.dim() == _IMAGE and (channels_last(image) or channels_last(filters))
    copy = 0 if (channels_last(image) if last else image.is_contiguous()) else size_of(image)
    columns = prod(filters.shape[1:]) * prod(out.shape[2:]) * image.element_size() if prod(filters.shape[2:]) > 1 else 0
    return copy + (columns if groups == 1 else max(size_of(out), size_of(image) // groups + columns))


def cpu_attention_workspace(query: torch.Tensor, key: torch.Tensor) -> int:
    """What each thread of the CPU's flash attention holds, for all threads; `query` is (B, H, S, D).

    A block of scores, its rows' maxima and sums and their results in float32, and the scores again in a half precision.
    Source: `cpu_flash_attention` of ATen/native/cpu/FlashAttentionKernel.cpp.
    """
    dim, (rows, columns) = query.shape[-1], score_block(query, key)
    scores = rows * columns
    again = scores * query.element_size() if query.dtype in HALF else 0
    return torch.get_num_threads() * (4 * (scores + 2 * rows + rows * dim) + again)


def score_block(query: torch.Tensor, key: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of the block of scores that a thread of it works on."""
    length = query.shape[-2]
    rows = min(length, next(rows for shortest, rows in _BLOCK_ROWS if length >= shortest))
    return rows, min(key.shape[-2], _BLOCK_COLUMNS)


_BLOCK_ROWS = ((768, 256), (192, 64), (0, 32))
"""Rows of a block of scores, by the shortest query that has them."""
_BLOCK_COLUMNS = 512
_IMAGE = 4
"""Dimensions of a batch of images."""
_ONEDNN = ("Mkldnn", "MkldnnTranspose", "MkldnnEmpty")


def _block() -> int:
    """Channels of one of oneDNN's blocks: 16 with AVX-512, else 8."""
    return 16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 8


def blocked(tensor: torch.Tensor) -> int:
    """Bytes of `tensor` with its channels padded to whole blocks."""
    block, channels = _block(), tensor.shape[1]
    return size_of(tensor) // channels * (-(-channels // block) * block)


def _backend(args: Any) -> str:
    """Name of the kernel that PyTorch chooses for these arguments of `aten.convolution`."""
    image, filters, bias, stride, padding, dilation, transposed, output_padding, groups = args
    chosen = torch._C._select_conv_backend(
        image, filters, bias, stride, padding, dilation, transposed, output_padding, groups, bias_sizes=None
    )
    return str(chosen).rpartition(".")[2]


Rule = Callable[[Any, torch.Tensor, str], int]
_ARITHMETIC = (f"aten.{op}{place}.Tensor" for op in ("add", "sub", "mul", "div") for place in ("", "_"))
_RULES: dict[str, Rule] = dict.fromkeys(_ARITHMETIC, promotion_workspace) | {
    "aten.convolution.default": _convolution,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": _attention,
    "aten.native_layer_norm.default": _layer_norm,
    "aten._safe_softmax.default": _safe_softmax,
    "bitsandbytes.gemm_4bit.default": four_bit_workspace,
}
"""Arguments, first output and device to bytes, by the name of the op."""
