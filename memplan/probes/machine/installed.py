"""The packages that techniques need, as they are installed beside memplan, and the C compiler."""

import os
from importlib.metadata import PackageNotFoundError, version
from shutil import which

OPTIONAL = (
    *("bitsandbytes", "torchao", "optimum-quanto", "nvidia-modelopt", "gguf", "peft"),
    *("flash-attn", "flash-attn-3", "sageattention", "xformers", "kernels"),
    *("triton", "pytorch-triton", "triton-rocm", "pytorch-triton-rocm", "pytorch-triton-xpu", "triton-windows"),
)
COMPILERS = ("cc", "gcc", "clang", "cl")
"""Programs that compile C, beside the one that the variable CC names."""


def installed() -> tuple[tuple[str, str], ...]:
    """Name and version of each that is there, and "cc" with the path of a C compiler; none is imported or run."""
    found: list[tuple[str, str]] = []
    for package in OPTIONAL:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    compiler = next(filter(None, map(which, filter(None, (os.environ.get("CC"), *COMPILERS)))), None)
    return (*found, ("cc", compiler)) if compiler else tuple(found)
