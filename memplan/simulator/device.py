"""What the libraries and the driver take of a device, beside tensors: constants with their sources."""

from memplan.facts import ASSUMED_CAPABILITY, MIB, Gpu

_CONTEXTS = {(7, 0): 256 * MIB, (7, 5): 256 * MIB, (8, 0): 426 * MIB, (8, 6): 256 * MIB, (8, 9): 426 * MIB}
_NEW_CONTEXT = 612 * MIB
"""A bare CUDA context, lazily loaded, by compute capability, as others measured it: 256 MiB on an RTX 3090
(invoke-ai/InvokeAI issue 9413), 426 MiB on an RTX 6000 Ada, the largest chip of 8.9 (unslothai/unsloth-zoo pull 1053),
612 MiB on a B200 (unslothai/unsloth pull 8669). It grows with the chip. Where no figure is published that of another
chip counts: the RTX 3090's for 7.x, the RTX 6000 Ada's for the A100, the B200's for Hopper and all of Blackwell."""

_HIP_CONTEXT = 410 * MIB
"""A HIP process on an RX 7900 XTX (Quartermaster-Labs/Quartermaster pull 24: about 0.4 GiB). Intel's counts as much, as
none is published."""

KERNELS = 164 * MIB
"""Kernels loaded beyond the bare context once a model has run: 0.16 GiB on an H100 (vllm-project/vllm pull 12126)."""

_LARGE = 32 * MIB
_SMALL = 8 * MIB + 8 * 16 * 1024
_LT = 76 * MIB
_HIPBLASLT = ("gfx90a", "gfx942", "gfx950", "gfx1200", "gfx1201")


def blas_workspace(gpu: Gpu | None) -> int:
    """Bytes that workspaces of matrix products hold through the allocator once one has run; none on Intel and Apple.

    cuBLAS: 32 MiB on Hopper and Blackwell, 2 x 4 MiB + 8 x 16 KiB before them; cuBLASLt shares it. rocBLAS: 128 MiB on
    MI300 and MI350, else 32 MiB; beside it hipBLASLt's 76 MiB where PyTorch prefers that. Sources:
    `parseChosenWorkspaceSize` and `parseCUDABlasLtWorkspaceSize` in PyTorch's aten/src/ATen/cuda/CublasHandlePool.cpp,
    `getHipblasltPreferredArchs` in its detail/CUDAHooks.cpp, `torch.backends.cuda.blas_workspace_size`.
    """
    if gpu is None or gpu.kind not in ("cuda", "rocm"):
        return 0
    if gpu.kind == "rocm":
        own = 4 * _LARGE if gpu.arch.startswith(("gfx94", "gfx95")) else _LARGE
        return own + _LT * (gpu.arch in _HIPBLASLT)
    major, _ = gpu.capability or ASSUMED_CAPABILITY
    return _LARGE if major in (9, 10, 12) else _SMALL


def context(gpu: Gpu | None) -> int:
    """Bytes of the device context with the kernels that a pipeline loads, which no tensor statistic shows.

    Published measurements, not ours; Apple's working set has no such part.
    """
    if gpu is None or gpu.kind not in ("cuda", "rocm", "xpu"):
        return 0
    if gpu.kind != "cuda":
        return _HIP_CONTEXT + KERNELS
    return KERNELS + _CONTEXTS.get(gpu.capability or ASSUMED_CAPABILITY, _NEW_CONTEXT)
