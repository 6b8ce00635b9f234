"""What a CUDA device takes beside tensors, in bytes: workspace of convolutions, its context, pinned blocks."""

import os

import torch
from torch.nn.functional import conv2d

from memplan.facts import MIB
from memplan.probes.calibrate.clock import Figure
from memplan.probes.machine.nvml import NvmlMissing, nvml_used
from memplan.probes.trace.workspace import cudnn_workspace, size_of

CHANNELS, SIZE = 256, 256
"""Of the picture that is convolved, as in the decoder of a VAE."""
ODD = 5 * MIB + 512
"""Bytes that are pinned: no power of two."""
MOST_BLOCKS = 16


@torch.inference_mode()
def workspace(dtype: str, channels_last: bool) -> Figure:
    """Bytes that a convolution holds beside image, filters and result; beside them what memplan's rule says."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    shape = (1, CHANNELS, SIZE, SIZE)
    image = torch.randn(shape, device="cuda").to(getattr(torch, dtype)).contiguous(memory_format=form)
    filters = torch.randn(CHANNELS, CHANNELS, 3, 3, device="cuda").to(image.dtype)
    conv2d(image, filters, padding=1)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    out = conv2d(image, filters, padding=1)
    held = torch.cuda.memory_stats()["requested_bytes.all.peak"] - before - size_of(out)
    rule = cudnn_workspace((image, filters), out)
    return Figure(held, note=f"{CHANNELS} channels, {SIZE} x {SIZE}, filters of 3 x 3", assumed=rule)


def in_use() -> int | None:
    """Bytes in use on the device, by all processes; None where NVML does not tell."""
    try:
        return nvml_used(os.environ)[0]
    except NvmlMissing:
        return None


def context(before: int | None) -> Figure:
    """Bytes of this process on the device that no tensor statistic shows, kernels included.

    `before` were in use by all when this process had no context yet, or None. Raises RuntimeError where the driver does
    not tell what this process holds and that is not known either.
    """
    used, own = nvml_used(os.environ)
    if own:
        return Figure(own - torch.cuda.memory_reserved(), note="by the driver's list of processes")
    if before is None:
        raise RuntimeError("the driver does not tell what this process holds")
    held = used - before - torch.cuda.memory_reserved()
    return Figure(held, note="by what is in use on the device, which other processes change too")


def pinned_block() -> Figure:
    """Bytes of the block that PyTorch takes to pin `ODD` of them, once none that it has kept will do."""
    kept = list[torch.Tensor]()
    for _ in range(MOST_BLOCKS):
        before = torch.cuda.host_memory_stats()
        kept.append(torch.empty(ODD, dtype=torch.uint8, pin_memory=True))
        after = torch.cuda.host_memory_stats()
        if after["num_host_alloc"] > before["num_host_alloc"]:
            taken = after["allocated_bytes.current"] - before["allocated_bytes.current"]
            return Figure(taken, note=f"to pin {ODD:,} bytes")
    raise RuntimeError(f"{MOST_BLOCKS} blocks came from memory that was pinned before")
