"""Texts without figures: codes of the drivers and libraries, those that hide a lack of memory, and what is none."""

import re

from memplan.oom.allocation import HOST, POSSIBLY, Allocation
from memplan.oom.devices import kind_of, number
from memplan.oom.sizes import find

_NONE = re.compile(
    r"illegal memory access|misaligned address|device-side assert|out of shared memory|shared memory limit"
    r"|insufficient shared memory|bus error|out of resource: |too many resources requested|same device"
    r"|on different devices|invalid device ordinal|no space left|memory format|cannot pin|pin_memory allocator"
    r"|no kernel image|out of bounds|out of range|already mapped",
    re.IGNORECASE,
)
"""What speaks of memory, devices or resources, and is no lack of memory."""
FORBIDDEN = "write+execute memory"
"""What some systems do not allow; cffi raises MemoryError for it."""
_DRIVER = re.compile(
    r"\b(CUDA|HIP)(?: driver| runtime)? (?:error|err)\b[^:\n]*: *out of memory"
    r"|\b(cuda|hip)(?:Error(?:MemoryAllocation|OutOfMemory))\b"
    r"|\b(CUDA|HIP)_ERROR_OUT_OF_MEMORY\b"
    r"|Triton Error \[(CUDA|HIP)\]:.*out of memory"
    r"|\b(Cuda|HIP) failure.*out of memory"
    r"|\b(cuda|hip)Malloc\w*\b[^\n]*out of memory",
    re.IGNORECASE,
)
_LINE = re.compile(r"\bError out of memory at line \d+ in file", re.IGNORECASE)
"""bitsandbytes' and other libraries' check of a CUDA call."""
_XPU = re.compile(r"OUT_OF_DEVICE_MEMORY|MEM_OBJECT_ALLOCATION_FAILURE")
_XPU_PERHAPS = re.compile(r"\b(?:PI_ERROR|UR_RESULT_ERROR|CL)_OUT_OF_RESOURCES\b")
_STATUS = re.compile(
    r"\b(?:CU|HIP)(?:BLAS|SPARSE|SOLVER|RAND|DNN|FFT)\w*?_(?:STATUS_)?(?:ALLOC_FAILED|ALLOCATION_FAILED|NOT_INITIALIZED)"
    r"|\bCU(?:DNN|BLAS)_STATUS_(?:INTERNAL_ERROR|EXECUTION_FAILED)\w*"
    r"|\bCU\w+_STATUS_INTERNAL_ERROR,? when calling `?\w*Create"
    r"|unable to find an engine to execute this computation|cublasLt ran into an error"
)
_AMD_STATUS = re.compile(
    r"\bmiopenStatus(?:AllocFailed|InternalError|UnknownError)\b|\brocblas_status_memory_error\b"
    r"|HSA_STATUS_ERROR_OUT_OF_RESOURCES"
)
_SAYS = re.compile(
    r"out of (?:\w+ )?memory|(?:not enough|insufficient) (?:\w+ )?memory|OOM when allocating"
    r"|(?:can't|cannot|can not|could not|unable to|failed to) alloc(?:ate)? [^.]*\bmemory",
    re.IGNORECASE,
)
_ASKED = (r"tr(?:ied|ying) to allocate {}", r"cannot allocate {}", r"allocating {}", r"failed to allocate {}")


def none(text: str, *, of_memory: bool) -> bool:
    """Whether `text` tells of another failure; `of_memory` is whether the error's class speaks of memory."""
    return FORBIDDEN in text or (not of_memory and bool(_NONE.search(text)))


def driver(text: str) -> Allocation | None:
    """Codes of the drivers that mean that memory ran out."""
    if found := _DRIVER.search(text):
        word = next(filter(None, found.groups()))
        return Allocation(kind_of(word), number(text))
    if _LINE.search(text):
        return Allocation("cuda")
    return Allocation("xpu") if _XPU.search(text) else None


def hidden(text: str) -> Allocation | None:
    """Failures of libraries that are often a lack of memory: they allocate for themselves, and say little."""
    if found := _STATUS.search(text):
        return Allocation("rocm" if found[0].startswith("HIP") else "cuda", certainty=POSSIBLY)
    if _AMD_STATUS.search(text):
        return Allocation("rocm", certainty=POSSIBLY)
    return Allocation("xpu", certainty=POSSIBLY) if _XPU_PERHAPS.search(text) else None


def said(text: str) -> Allocation | None:
    """Words of others that speak of a lack of memory."""
    if not _SAYS.search(text):
        return None
    asked = next((found for pattern in _ASKED if (found := find(pattern, text))), None)
    on_gpu = re.search(r"\b(?:GPU|CUDA|device|video|VRAM)\b", text, re.IGNORECASE)
    on_host = re.search(r"\b(?:host|CPU|RAM|system memory)\b", text)
    kind = HOST if on_host and not on_gpu else "cuda" if re.search(r"\bCUDA\b|\bGPU\b", text) else ""
    return Allocation(kind, number(text) if on_gpu else None, asked, certainty=POSSIBLY)
