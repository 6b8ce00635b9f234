"""What tests of guidance share: calls of the denoiser, counted, and dry runs of one technique."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from memplan.facts import Call, Facts, Trace
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import switches
from tests.accuracy.measured import peak_of
from tests.measured_facts import facts_of


def denoiser(pipe: Any) -> str:
    """The name of the component that denoises."""
    return "unet" if hasattr(pipe, "unet") else "transformer"


def watched(part: Any) -> list[int]:
    """The batch of each forward of `part` from now on, as the list grows; what is applied later stands before it."""
    sizes: list[int] = []
    forward = part.forward

    @wraps(forward)
    def counting(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(next(iter((*args, *kwargs.values())))))
        return forward(*args, **kwargs)

    part.forward = counting
    return sizes


def traced(pipe: Any, call: dict[str, Any], plan: str, **settings: Any) -> Trace:
    """The dry run of `call`, and of its denoiser called as the techniques of `plan` have it."""
    return dry_run(open_pipeline(pipe), call | {"output_type": "latent"}, switches=switches([plan]), **settings)


def facts(pipe: Any, call: dict[str, Any], plan: str) -> Facts:
    """Facts with that dry run."""
    return replace(facts_of(pipe), trace=traced(pipe, call, plan))


def made(trace: Trace, component: str, way: str) -> tuple[Call, Call]:
    """The call of `component` as it is, and made in this way."""
    plain = next(c for c in trace.calls if c.component == component)
    return plain, trace.alternative(plain, frozenset({way}))


def highest(part: Any, run: Callable[[], Any]) -> int:
    """The most bytes that any one call of `part` allocates while `run` runs."""
    peaks: list[int] = []
    forward = part.forward

    @wraps(forward)
    def measured(*args: Any, **kwargs: Any) -> Any:
        result, peak = peak_of(lambda: forward(*args, **kwargs))
        peaks.append(peak)
        return result

    part.forward = measured
    try:
        run()
    finally:
        part.forward = forward
    return max(peaks)
