"""What a real pipeline on this CPU allocates: the peak of each component call, measured with torch.profiler."""

import os
from functools import wraps
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch is imported: the profiler announces each start and stop

import torch

from memplan.faces.compare.allocations import held_by, peak_of

__all__ = ["METHODS", "component_peaks", "held_by", "peak_of"]
METHODS = ("forward", "encode", "decode")


def component_peaks(pipe: Any, call: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Run `pipe(**call)`; the peak of the first call of each component's methods, in bytes above what was there."""
    peaks: dict[tuple[str, str], int] = {}
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    inside = False

    def watch(name: str, module: torch.nn.Module, method: str) -> None:
        original = getattr(module, method)

        @wraps(original)  # pipelines look at what a component's forward takes
        def watched(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside or (name, method) in peaks:
                return original(*args, **kwargs)
            inside = True
            try:
                result, peaks[name, method] = peak_of(lambda: original(*args, **kwargs))
            finally:
                inside = False
            return result

        module.__dict__[method] = watched

    for name, module in modules.items():
        for method in METHODS:
            if hasattr(module, method):
                watch(name, module, method)
    pipe(**call)
    return peaks
