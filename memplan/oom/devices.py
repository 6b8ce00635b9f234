"""Texts of the allocators of devices: PyTorch's own ones, CUDA's asynchronous one, Metal's and DirectML's."""

import re

from memplan.oom.allocation import POSSIBLY, Allocation, Other
from memplan.oom.sizes import SIZE, find, size

KINDS = {"CUDA": "cuda", "HIP": "rocm", "XPU": "xpu", "MPS": "mps"}
_OUT = re.compile(r"\b(CUDA|HIP|XPU|MPS|NPU|HPU|MLU|MUSA)(?: backend)? out of memory\b")
_NUMBER = re.compile(r"\b(?:GPU|NPU|XPU|HPU|MLU|device)\s*:?\s*(\d+)\b", re.IGNORECASE)
_OTHER = re.compile(rf"\bProcess (\d+) has {SIZE} memory in use")
_ASKED = r"tried to allocate {}"


def kind_of(word: str) -> str:
    """The kind of device by the name that PyTorch prints."""
    return KINDS.get(word.upper(), word.lower())


def number(text: str) -> int | None:
    """The number of the device that `text` names."""
    found = _NUMBER.search(text)
    return int(found[1]) if found else None


def caching(text: str) -> Allocation | None:
    """PyTorch's caching allocators, in the wordings of PyTorch 1 and 2: "CUDA out of memory. Tried to allocate …"."""
    out = _OUT.search(text)
    capped = "allocate memory block with size larger than" in text
    if out is None and not capped:
        return None
    kind = kind_of(out[1]) if out else "xpu"
    if kind == "mps":
        return _metal(text)
    allocated = _first(text, r"{} already allocated", r"{} is allocated by PyTorch")
    return Allocation(
        kind,
        number(text),
        find(_ASKED, text),
        _first(text, r"{} total capacity", r"total capaci?ty of {}"),
        _first(text, r"{} free\b", r"of which {} is free"),
        allocated,
        _unallocated(text, allocated),
        find(r"{} allowed\b", text),
        find(r"this process has {} memory in use", text),
        _others(text),
    )


def _first(text: str, *patterns: str) -> int | None:
    return next((found for pattern in patterns if (found := find(pattern, text)) is not None), None)


def _unallocated(text: str, allocated: int | None) -> int | None:
    """What is reserved beside tensors. Until PyTorch 1.3 that is "cached"; then "reserved in total" has both."""
    apart = _first(text, r"{} is reserved by PyTorch but unallocated", r"{} cached\b")
    total = find(r"{} reserved in total", text)
    if apart is not None or total is None:
        return apart
    return max(total - (allocated or 0), 0)


def _others(text: str) -> tuple[Other, ...]:
    """The processes that are named, but those whose memory the driver does not tell."""
    sizes = ((int(pid), size(amount, unit)) for pid, amount, unit in _OTHER.findall(text))
    return tuple(Other(pid, nbytes) for pid, nbytes in sizes if nbytes is not None)


def _metal(text: str) -> Allocation:
    """Metal's: "MPS allocated" are PyTorch's own buffers, "other allocations" what Metal holds for this process."""
    allocated, beside = find(r"MPS allocated: {}", text), find(r"other allocations: {}", text)
    in_use = None if allocated is None else allocated + (beside or 0)
    limit = find(r"max allowed: {}", text)
    return Allocation("mps", asked=find(_ASKED, text), allocated=allocated, limit=limit, in_use=in_use)


def asynchronous(text: str) -> Allocation | None:
    """CUDA's own pool (`backend:cudaMallocAsync`): "Allocation on device 0 would exceed allowed memory"."""
    if not re.match(r"\s*(?:[\w.]+:\s*)?Allocation on device\b", text):
        return None
    return Allocation(
        "cuda",
        number(text),
        find(r"Requested\s*:\s*{}", text),
        find(r"Device limit\s*:\s*{}", text),
        find(r"Free \(according to CUDA\)\s*:\s*{}", text),
        find(r"Currently allocated\s*:\s*{}", text),
        limit=find(r"PyTorch limit[^:]*:\s*{}", text),
    )


def others(text: str) -> Allocation | None:
    """DirectML's text, MIOpen's, Metal's for one buffer that is too large, and its driver's."""
    if "not enough GPU video memory" in text:
        return Allocation("dml", asked=find(r"allocate tensor with {}", text))
    miopen = re.search(r"Memory not available to allocate buffer: (\d+)", text)
    if miopen:
        return Allocation("rocm", asked=int(miopen[1]))
    if "kIOGPUCommandBufferCallbackErrorOutOfMemory" in text:
        return Allocation("mps")
    buffer = find(r"Invalid buffer size: {}", text)
    return Allocation("mps", asked=buffer, certainty=POSSIBLY) if buffer else None
