"""A planned format against the same pipeline really quantized, and its dry run: weights and what its calls hold."""

import pytest
import torch

from memplan.faces.api import Target, facts
from memplan.facts import Call
from memplan.planner import seated
from memplan.registry import parse_plan
from memplan.run import Run
from memplan.simulator import simulate
from memplan.simulator.residency import height
from memplan.simulator.weights import total
from tests.pipelines import build, inputs
from tests.some import some

SIZE, TARGET = "medium", Target(gpu="RTX 4090", ram=64)
CLOSE = 0.06
"""By how much segments in use may be off: what a layer makes for itself is added to them, not followed block by block.
These pipelines are small beside a segment of 20 MiB."""
ROUNDED = 2048
"""What the small tensors of a layer are rounded up by, in bytes."""
FORMATS = ("bnb_4bit", "bnb_4bit:double_quant=false", "int8_weight_only", "int8_dynamic", "fp8_weight_only")
FAMILIES = ("flux", "wan", "sd3", "qwenimage", "sdxl")


def plan_of(form: str, parts: list[str]) -> str:
    """A plan in which each of `parts` is stored so."""
    name, _, settings = form.partition(":")
    return " + ".join(f"{name}:{','.join(filter(None, (part, settings)))}" for part in parts)


@pytest.mark.parametrize("form", some(FORMATS, "bnb_4bit"))
@pytest.mark.parametrize("family", some(FAMILIES, "flux"))
def test_a_plan_is_what_the_quantized_pipeline_holds(form: str, family: str) -> None:
    pipe = build(family, SIZE, torch.bfloat16)
    before = facts(pipe, dict(inputs(family, SIZE)), target=TARGET)
    called = {call.component for call in before.trace.calls if call.method == "forward"}
    parts = [c.name for c in before.model.components if c.name in called and not c.lack("quantization")]
    planned = seated(before, parse_plan(plan_of(form, parts), before))
    for strategy in planned.strategies:
        strategy.apply(pipe, "cpu")
    after = facts(pipe, dict(inputs(family, SIZE)), target=TARGET)
    for component in before.model.components:
        stored = planned.run.stored(component.name)
        assert total(component, stored) == after.model.component(component.name).size
    for call, other in zip(before.trace.calls, after.trace.calls, strict=True):
        assert held(planned.run, call) == pytest.approx(held(Run(after), other), rel=1e-4, abs=ROUNDED)
    required, real = planned.bill.peak.memory.required, simulate(Run(after)).peak.memory.required
    assert required == pytest.approx(real, rel=CLOSE)


def held(run: Run, call: Call) -> int:
    """Bytes at the highest moment of `call`; all that is made beside weights in own code."""
    if not call.component:
        return call.activations
    name = call.component
    return height(run.facts.model.component(name), run.placement(name), run.stored(name), call).total
