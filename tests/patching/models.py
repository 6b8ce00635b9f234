"""Facts of made-up pipelines with the components of real families, and no torch."""

from dataclasses import replace
from functools import cache

from memplan.facts import Component, Facts, Step, Trace
from memplan.planner import Plan, draw
from memplan.registry import parse_plan
from tests.faces import small

DENOISERS = {"sd": "unet", "sdxl": "unet"}
TWO_TEXTS = ("sdxl", "flux")
CLASSES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "flux": "FluxPipeline",
    "video": "WanPipeline",
    "qwen": "QwenImagePipeline",
}


def facts(family: str, vram: float = 8) -> Facts:
    """Those of a family of pipelines: the sizes are those of small.facts()."""
    made = small.facts(vram)
    names = {"transformer": DENOISERS.get(family, "transformer")}
    parts = [replace(part, name=names.get(part.name, part.name)) for part in made.model.components]
    calls = tuple(replace(call, component=names.get(call.component, call.component)) for call in made.trace.calls)
    steps, order = made.trace.timeline, tuple(names.get(name, name) for name in made.model.offload_order)
    if family in TWO_TEXTS:
        parts.insert(1, _second(parts[0]))
        calls, steps = (*calls, replace(calls[0], component="text_encoder_2")), (steps[0], Step(3, 1), *steps[1:])
        order = (order[0], "text_encoder_2", *order[1:])
    model = replace(made.model, class_name=CLASSES[family], components=tuple(parts), offload_order=order)
    trace: Trace = replace(made.trace, calls=calls, timeline=steps)
    return replace(made, model=model, trace=trace)


def _second(text_encoder: Component) -> Component:
    return replace(text_encoder, name="text_encoder_2")


@cache
def plan(family: str, text: str) -> Plan:
    """A plan as it is typed, for such a pipeline."""
    measured = facts(family)
    return draw(measured, parse_plan(text, measured))
