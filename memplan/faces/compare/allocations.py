"""What a call on this CPU allocates, as torch's profiler counts it: the CPU has no allocator that keeps its peak."""

from collections.abc import Callable
from typing import Any


def peak_of(function: Callable[[], Any]) -> tuple[Any, int]:
    """What `function` returns, and the most bytes that its allocations held at once."""
    result, peak, _ = held_by(function)
    return result, peak


def held_by(function: Callable[[], Any]) -> tuple[Any, int, int]:
    """What `function` returns, the most bytes that its allocations held at once, and those that are left."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    live = peak = 0
    events: Any = profiler.profiler
    for event in events.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return result, peak, live
