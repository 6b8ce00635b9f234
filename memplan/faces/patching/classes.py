"""Whether the class of a script's pipeline has the components that a plan for another class works on."""

import inspect
import re

from memplan.faces.patching.added import PIPE, Added
from memplan.faces.patching.find import Pipeline
from memplan.faces.patching.reading import Script
from memplan.planner import Plan


def check_class(script: Script, pipeline: Pipeline, adding: Added, plan: Plan) -> None:
    """Raises NotPatched where the added lines need a component that the pipeline's class does not know."""
    import diffusers

    planned, kind = plan.run.facts.model.class_name, getattr(diffusers, pipeline.class_name, None)
    if pipeline.class_name == planned or kind is None or not _is_certain(pipeline.class_name):
        return
    known, code = inspect.signature(kind.__init__).parameters, "\n".join((*adding.lines, adding.quantized))
    for part in plan.run.facts.model.components:
        if part.name not in known and re.search(rf'\b{PIPE}\.{part.name}\b|"{part.name}"', code):
            what = f"{pipeline.class_name} has no {part.name}, and the plan is for {planned}"
            raise script.refuse(pipeline.load, what, "name the model that is loaded here with --model")


def _is_certain(name: str) -> bool:
    """Whether a class is that of the pipeline itself, and none that chooses one."""
    return name != "DiffusionPipeline" and not name.startswith("Auto")
