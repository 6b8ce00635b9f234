"""What there is to know about a patched script, in sentences."""

import re
from collections.abc import Iterator

import libcst as cst

from memplan.faces.patching.added import Added
from memplan.faces.patching.chosen import Found
from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.device import elsewhere
from memplan.faces.patching.find import Pipeline
from memplan.faces.patching.homes import Homes
from memplan.faces.patching.places import Place
from memplan.faces.patching.reading import Script, method
from memplan.faces.report.code import device_of
from memplan.planner import Plan

LOADS_MORE = ("load_ip_adapter", "load_lora_weights", "load_textual_inversion")


def notes(here: Found, where: Place, decided: Calls, adding: Added, plan: Plan) -> tuple[str, ...]:
    """What the plan's bill has not, and what of the script's own was taken out."""
    script, pipeline, homes, others = here.script, here.pipeline, here.homes, here.others
    return (
        *_taken_out(script, decided, adding),
        *_device_elsewhere(here, where, decided, plan),
        *_unpriced(script, homes),
        *(
            f"{name} is not in the plan: it stays on the device, and its memory is not in the bill"
            for name in adding.beside
        ),
        *_unknown(script, homes, plan),
        *_shared(script, homes, others),
        *(f"{name} is left out by the script, and so is what the plan does with it" for name in adding.absent),
        *(f"line {script.line(o.load)} loads another pipeline, whose memory is not in the bill" for o in others),
        *_other_class(script, pipeline, plan),
    )


def _taken_out(script: Script, decided: Calls, adding: Added) -> Iterator[str]:
    code = "\n".join((*adding.lines, adding.quantized))
    for small, what in decided.dropped.items():
        word = what.removesuffix("()").replace("_vae_", "_").replace("enable_attention_slicing", "set_attention_slice")
        if what and word not in code and not re.search("offload|freeze|quantize|disable|reset|remove", word):
            yield f"line {script.line(small)}: {what} is taken out, as the plan does not have it"


def _device_elsewhere(here: Found, where: Place, decided: Calls, plan: Plan) -> Iterator[str]:
    if where.move is None and not here.lifted.shifts and not elsewhere(here.script, decided):
        for call, given in decided.devices[:1]:
            shown = here.script.text(given) if given is not None else "cuda"
            line = f"line {here.script.line(call)}: the pipeline was moved to {shown} there"
            yield f"{line}; the plan is applied where it is loaded, on {device_of(plan)}"


def _unpriced(script: Script, homes: Homes) -> Iterator[str]:
    for call in script.all(cst.Call):
        if method(call) in LOADS_MORE and isinstance(call.func, cst.Attribute) and homes.has(call.func.value):
            yield f"line {script.line(call)}: what {method(call)}() adds is not in the bill"


def _unknown(script: Script, homes: Homes, plan: Plan) -> Iterator[str]:
    known = {part.name for part in plan.run.facts.model.components}
    for name, own in homes.own.items():
        if not own.loads and name not in known:
            yield f"what {name} is cannot be told: if it has weights, move it to the device yourself"


def _shared(script: Script, homes: Homes, others: tuple[Pipeline, ...]) -> Iterator[str]:
    for other in others:
        parts = [part for given in other.load.args if (part := homes.part(given.value))]
        if parts:
            what = f"hands {', '.join(parts)} on to another pipeline, which may move what the plan places"
            yield f"line {script.line(other.load)} {what}"


def _other_class(script: Script, pipeline: Pipeline, plan: Plan) -> Iterator[str]:
    planned = plan.run.facts.model.class_name
    if pipeline.class_name not in (planned, "DiffusionPipeline") and not pipeline.class_name.startswith("Auto"):
        line = script.line(pipeline.load)
        yield f"line {line} loads {pipeline.class_name}, and the plan was made for a call of {planned}"
