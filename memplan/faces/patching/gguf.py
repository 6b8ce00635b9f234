"""Components that a script loads from GGUF files, whose weights are other ones than those that a plan may be for."""

import libcst as cst

from memplan.faces.patching.homes import Homes
from memplan.faces.patching.reading import Script, argument, method
from memplan.faces.patching.values import assigned, value
from memplan.faces.report.loading import QUANTIZATION
from memplan.planner import Plan

CONFIG = "GGUFQuantizationConfig"


def check_files(script: Script, homes: Homes, plan: Plan) -> None:
    """Raises NotPatched where a component comes from a GGUF file, and the plan is for it as the pipeline has it."""
    planned = {part.name: part for part in plan.run.facts.model.components}
    for name, own in homes.own.items():
        if own.file is not None and name in planned and not planned[name].file and _is_gguf(script, own.file):
            what = f"{name} comes from a GGUF file, and the plan is for the weights that the pipeline has"
            raise script.refuse(own.file, what, f'plan for that file, as in --model "MODEL,{name}=FILE.gguf"')


def _is_gguf(script: Script, load: cst.Call) -> bool:
    file, config = value(script, load.args[0].value if load.args else None), argument(load, QUANTIZATION)
    place = assigned(script, config) if isinstance(config, cst.Name) else None
    made = place.value if place is not None else config
    return str(file).endswith(".gguf") or (made is not None and method(made) == CONFIG)
