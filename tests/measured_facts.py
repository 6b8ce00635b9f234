"""Facts of a small pipeline on a made-up machine, with a trace that says only who is called how."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from memplan.facts import (
    DENOISING,
    GIB,
    HALVED,
    PAIRED,
    TEXT_ENCODING,
    ZEROED,
    Call,
    Facts,
    Gpu,
    Host,
    Machine,
    Segment,
    Step,
    Trace,
    Turn,
)
from memplan.probes.machine.installed import installed
from memplan.probes.pipeline import measure
from memplan.probes.trace.elsewhere import QUESTION
from memplan.strategies import ComputeDtype

NOTHING = Segment(enters=(), leaves=(), live=0, peak=0, op=0)


SOMETHING = replace(NOTHING, peak=1)


UNUSED = ("image_encoder", "safety_checker")
"""Components that no call of the small pipelines uses, where they have them."""


PHASES = {"unet": DENOISING, "transformer": DENOISING}
"""Of the components that run between text encoders and VAEs."""


def call(component: str, method: str, variant: tuple[str, ...] = ()) -> Call:
    """One call of a component; made another way it holds nothing."""
    phase = TEXT_ENCODING if component.startswith("text_encoder") else PHASES.get(component, "")
    return Call(component, method, phase, 0, ("",), ("",), (NOTHING if variant else SOMETHING,), variant)


def cast_call(component: str, part: Any) -> list[Call]:
    """The call of a denoiser in half precision, with the weights that are cast for it."""
    weights = dict(part.named_parameters())
    before = {name: weight.dtype for name, weight in weights.items()}
    if (
        hasattr(part, "decode")
        or type(part).__module__.startswith("transformers.")
        or not PLAIN.issuperset(before.values())
    ):
        return []
    found = []
    for dtype in ("bfloat16", "float16"):
        ((way, switch),) = ComputeDtype.switches({"dtype": dtype}).items()
        undo = switch(part)
        recast = tuple((name, dtype) for name, weight in weights.items() if weight.dtype != before[name])
        undo()
        found.append(replace(call(component, "forward", (way,)), recast=recast))
    return found


PLAIN = {torch.float32, torch.bfloat16, torch.float16}
GUIDED = [(HALVED,), (PAIRED,), (ZEROED,)]
"""How a denoiser may make the passes of guidance."""
CHECKPOINTED = [("checkpointed:1",), ("checkpointed:2",)]
"""How a denoiser may be trained."""
Ways = Mapping[str, Sequence[tuple[str, ...]]]


def ways_of(pipe: Any) -> Ways:
    """Every way that memplan knows to call the components of `pipe`, as if each changed something."""
    square = hasattr(pipe.vae, "tile_sample_min_size")
    tiles = (("tiled",), ("tiled:16",)) if square else (("tiled",),)
    frames = [("frames:16",)] if hasattr(pipe.vae, "num_sample_frames_batch_size") else []
    layout = ("channels last",)
    vae = [("sliced",), *tiles, *(("sliced", *tile) for tile in tiles), *frames, layout]
    return {
        "vae": vae,
        "unet": [("attention in slices",), layout, *GUIDED, *CHECKPOINTED],
        "transformer": [*GUIDED, *CHECKPOINTED],
    }


def facts_of(pipe: Any, kind: str = "cuda", ways: Ways | None = None, unified: bool = False) -> Facts:
    """Facts of `pipe` on a device of `kind`; `ways` to call its components change something, None for all there are."""
    model = measure(pipe)
    used = (c.name for c in model.components if c.name not in UNUSED)
    calls = tuple(call(name, "decode" if name == "vae" else "forward") for name in used)
    made = ways_of(pipe) if ways is None else ways
    others = tuple(call(c.component, c.method, way) for c in calls for way in made.get(c.component, ()))
    if ways is None:
        others += tuple(one for c in calls for one in cast_call(c.component, getattr(pipe, c.component)))
    timeline = tuple(Step(i, 1, prompted=one.phase == TEXT_ENCODING) for i, one in enumerate(calls))
    gpu = Gpu("a GPU", total=24 * GIB, free=24 * GIB, kind=kind, unified=unified)
    machine = Machine(gpu, Host(total=64 * GIB, available=64 * GIB), packages=installed())
    alone = tuple((c.name,) for c in model.components if c.name.startswith("text_encoder"))
    host_side = alone if asks(pipe) else ()
    trace = Trace("cuda", calls, timeline, others, host_side=host_side, turns=turns_of(pipe), encoded=1)
    return Facts(machine, model, trace)


def turns_of(pipe: Any) -> tuple[Turn, ...]:
    """Two steps of each denoiser that takes step caches, guided where the pipeline guides by halves of a batch."""
    caching = [name for name, part in pipe.components.items() if hasattr(part, "enable_cache")]
    guided = type(pipe).__name__ in HALVES
    return tuple(Turn(name, "cond", time, guided) for name in caching for time in (1000.0, 500.0))


HALVES = ("CogVideoXPipeline", "MochiPipeline")


def asks(pipe: Any) -> bool:
    """Whether the pipeline's module has what asks where a component computes."""
    return QUESTION in vars(sys.modules[type(pipe).__module__])
