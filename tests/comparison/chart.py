"""The decision chart of diffusers' "optimizations" skill, as a function that names a plan.

Source: .ai/skills/optimizations/memory-calculator.md of diffusers pull request 13381, "Quick decision flowchart" and
"Pick the best strategy". The chart compares its own estimates with the memories; only A is memplan's, as the skill says
of it that it can't be measured ahead. It knows of no device context and of no workspace, and has none here.
"""

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.registry import EVERYTHING
from tests.comparison.parts import (
    HALF,
    QUARTER,
    activations,
    cast,
    castable,
    forwards,
    heavy,
    joined,
    plain,
    shrunk,
    willing,
)

PINNED = 3
"""The multiple of all weights that the chart wants of host memory before it streams from pinned copies."""
OFFLOAD = "model_offload"


def offloading(facts: Facts) -> str:
    """The path of casting and offloading. Raises BadInput where it ends without a plan."""
    vram, ram = facts.machine.vram - activations(facts), facts.machine.ram
    whole, smaller = plain(facts), cast(facts)
    if vram >= whole.total:
        return EVERYTHING
    if vram >= smaller.total:
        return casting(facts)
    if vram >= whole.largest:
        return OFFLOAD
    if vram >= smaller.largest:
        return joined((casting(facts), OFFLOAD))
    if ram >= PINNED * whole.total:
        return streamed(facts)
    return streamed(facts, ",low_cpu_mem=true") if ram >= whole.total else quantizing(facts)


def quantizing(facts: Facts) -> str:
    """The path of quantization: the least transfer that fits, then the most bits. Raises BadInput where none fits."""
    vram, ram = facts.machine.vram - activations(facts), facts.machine.ram
    if ram < facts.model.largest:
        raise BadInput("the chart has no plan: the largest component does not fit the host memory to be quantized")
    ways = [(f"int8_weight_only:{','.join(heavy(facts))}", shrunk(facts, HALF))]
    ways.append((f"bnb_4bit:{','.join(heavy(facts))}", shrunk(facts, QUARTER)))
    for words, sizes in ways:
        if vram >= sizes.total:
            return words
    for words, sizes in ways:
        if vram >= sizes.largest:
            return joined((words, OFFLOAD))
    raise BadInput("the chart has no plan: in 4 bits the largest component does not fit the device memory either")


def casting(facts: Facts) -> str:
    """Every component that can be, in float8."""
    return joined([f"layerwise_casting:{name}" for name in castable(facts)])


def streamed(facts: Facts, more: str = "") -> str:
    """Leaf-level group offload with a stream of denoisers and text encoders; without it where they can't be streamed.

    A component that cannot be offloaded in groups stays on the device, and so do VAEs, whose decode() is never learned.
    """
    found: list[str] = []
    for name in forwards(facts):
        ways = (f"group_offload:{name},stream=true{more}", f"group_offload:{name}")
        found += [way for way in ways if willing(facts, way)][:1]
    return joined(found) or EVERYTHING
