"""What the libraries and the driver take of a device, beside tensors: constants with their sources."""

from memplan.facts import MIB, Gpu

CONTEXT = 512 * MIB
"""Device memory of a CUDA context with PyTorch's kernels loaded lazily (CUDA 12, torch 2). An assumption: it differs
by driver and generation between about 300 and 600 MiB, and no card has been measured for it here yet."""

HOPPER = 9


def blas_workspace(gpu: Gpu | None) -> int:
    """Bytes that cuBLAS's workspace holds through the allocator once a matrix product has run.

    32 MiB from Hopper on, 2 x 4 MiB + 8 x 16 KiB before it, 32 MiB on ROCm; none on other devices. Source:
    `parseChosenWorkspaceSize` in PyTorch's aten/src/ATen/cuda/CublasHandlePool.cpp.
    """
    if gpu is None or gpu.kind not in ("cuda", "rocm"):
        return 0
    if gpu.kind == "rocm":
        return 32 * MIB
    major = gpu.capability[0] if gpu.capability else 8
    return 32 * MIB if major in (HOPPER, HOPPER + 1) else 8 * MIB + 8 * 16 * 1024


def context(gpu: Gpu | None) -> int:
    """Bytes of the device context, which no tensor statistic shows."""
    return CONTEXT if gpu is not None and gpu.kind in ("cuda", "rocm") else 0
