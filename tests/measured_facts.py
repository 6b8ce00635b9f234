"""Facts of a small pipeline on a made-up machine, with a trace that says only who is called how."""

from typing import Any

from memplan.facts import GIB, Call, Facts, Gpu, Host, Machine, Segment, Step, Trace
from memplan.probe.pipeline import measure

NOTHING = Segment(enters=(), leaves=(), live=0, peak=0, op=0, flops=0, traffic=0)


def call(component: str, method: str, variant: str = "") -> Call:
    """One call of a component, without figures."""
    return Call(component, method, "", 0, ("",), ("",), (NOTHING,), variant)


def facts_of(pipe: Any, kind: str = "cuda", tiles: bool = True, unified: bool = False) -> Facts:
    """Facts of `pipe` on a device of `kind`; with `tiles` the VAE's picture is larger than one tile."""
    model = measure(pipe)
    calls = tuple(call(c.name, "decode" if c.name == "vae" else "forward") for c in model.components)
    tiled = tuple(call(c.component, c.method, "tiled") for c in calls if tiles and c.component == "vae")
    timeline = tuple(Step(i, 1) for i in range(len(calls)))
    gpu = Gpu("a GPU", total=24 * GIB, free=24 * GIB, kind=kind, unified=unified)
    machine = Machine(gpu, Host(total=64 * GIB, available=64 * GIB))
    return Facts(machine, model, Trace("cuda", calls, timeline, tiled))
