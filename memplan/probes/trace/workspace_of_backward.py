"""Bytes that a loss or an op of a backward holds only while it runs, beside its inputs and what it gives."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from memplan.probes.trace.workspace import HALF, blocked, cudnn_workspace, score_block, size_of

FLOAT = 4
"""Bytes of a float32."""
ROWS, FEATURES = 128, 32
"""Multiples to which flash attention's backward rounds the rows of queries, and the head dimension."""


def workspace_of_backward(func: Any, args: Any, device: str) -> int:
    """Workspace in bytes of the loss or backward op `func` given `args`, on "cuda" or "cpu"; 0 for any other op."""
    rule = _RULES.get(str(func))
    return rule(args, device) if rule else 0


def _squared_error(args: Any, device: str) -> int:
    """The squares before their mean (`mse_loss_out` of ATen/native/Loss.cpp)."""
    return size_of(args[0])


def _convolution(args: Any, device: str) -> int:
    """Both gradients of a convolution, the image's before the filter's.

    On a CUDA device it is taken to be that of a convolution from the result's gradient to the image's: nothing
    published tells them apart.
    """
    gradient, image, filters, stride, wanted = args[0], args[1], args[2], args[4], args[-1]
    if device == "cuda":
        return cudnn_workspace((gradient, filters), image)
    return _on_cpu(gradient, image, filters, wanted, strided=max(stride) > 1)


def _on_cpu(
    gradient: torch.Tensor, image: torch.Tensor, filters: torch.Tensor, wanted: Sequence[bool], *, strided: bool
) -> int:
    """What oneDNN's backward holds: copies in blocks of channels.

    Measured as the forward's was, on channels-first images: for the image's gradient the result's and the filter in
    blocks, or its own; where the filter's is `wanted` too, for that both images in blocks, or its own. With
    channels last only filters are in blocks. A `strided` one makes the image's gradient with channels last, which is
    copied out and then made contiguous, so that there are two more of it (`mkldnn_to_dense` of ATen/native/mkldnn/
    MKLDNNConversions.cpp). The scratchpad of its kernel before that is left out: it is larger where images are small.
    """
    of_images, trains = wanted[:2]
    if not image.is_contiguous():
        return (3 if trains else 2) * size_of(filters)
    of_image = max(blocked(gradient) + size_of(filters), (1 + strided) * size_of(image))
    if not trains:
        return of_image
    before = of_image - size_of(filters) if of_images else 0
    return max(blocked(image) + blocked(gradient), size_of(filters), before)


def _attention_on_cpu(args: Any, device: str) -> int:
    """Scores and their gradients, a block of each for each thread, and the sums of a block's rows in float32.

    The result's gradient is copied unless it lies as (B, S, H, D). Measured with torch.profiler; source:
    `cpu_flash_attention_backward` of ATen/native/cpu/FlashAttentionKernel.cpp.
    """
    gradient, query, key = args[:3]
    rows, columns = score_block(query, key)
    copied = 0 if gradient.transpose(1, 2).is_contiguous() else size_of(gradient)
    return FLOAT * (2 * rows * columns * torch.get_num_threads() + rows) + copied


def _flash(args: Any, device: str) -> int:
    """The query's gradient in float32 and a float32 for each row, both rounded up (`mha_bwd` of flash_api.cpp)."""
    batch, heads, length, dim = args[1].shape
    rows = batch * heads * -(-length // ROWS) * ROWS
    return FLOAT * rows * (1 + -(-dim // FEATURES) * FEATURES)


def _efficient(args: Any, device: str) -> int:
    """A float32 for each row of queries, and of halves their gradient in float32 (`kNeedsAccumGradQ`).

    Source: `_efficient_attention_backward` of ATen/native/transformers/cuda/attention_backward.cu.
    """
    query = args[1]
    accumulated = query.numel() if query.dtype in HALF else 0
    return FLOAT * (prod(query.shape[:-1]) + accumulated)


_RULES: dict[str, Callable[[Any, str], int]] = {
    "aten.mse_loss.default": _squared_error,
    "aten.convolution_backward.default": _convolution,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": _attention_on_cpu,
    "aten._scaled_dot_product_flash_attention_backward.default": _flash,
    "aten._scaled_dot_product_efficient_attention_backward.default": _efficient,
}
"""Arguments and device to bytes, by the name of the op."""
