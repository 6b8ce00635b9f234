"""What a script itself says about the model it loads and how it calls it, as far as that is written out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import libcst as cst

from memplan.faces.options import REVISION
from memplan.faces.patching.calls import calls
from memplan.faces.patching.chosen import Found, given_dtypes
from memplan.faces.patching.reading import argument
from memplan.faces.patching.values import UNKNOWN, dtype, value

DTYPES = ("bfloat16", "float16", "float32")
"""Those that a pipeline can be planned in."""


@dataclass(frozen=True)
class Subject:
    """The source, "" where a run alone would tell; dtype and variant, each perhaps ""; arguments of the call."""

    source: str
    dtype: str
    variant: str
    call: Mapping[str, Any]


def subject(here: Found, names: tuple[str, ...]) -> Subject:
    """What the script says of its pipeline; of the arguments of its call those of `names`."""
    script, load = here.script, here.pipeline.load
    first = argument(load, "pretrained_model_name_or_path", 0)
    source = value(script, first)
    revision = value(script, argument(load, REVISION))
    source = f"{source}@{revision}" if isinstance(source, str) and isinstance(revision, str) else source
    given = [dtype(script, one) for one in given_dtypes(here, calls(script, here.pipeline, here.homes))]
    variant = value(script, argument(load, "variant"))
    return Subject(
        source if isinstance(source, str) else "",
        next((one for one in given if one in DTYPES), ""),
        variant if isinstance(variant, str) else "",
        _call(here, names),
    )


def _call(here: Found, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of the first call of the pipeline that are written out."""
    script = here.script
    made = next((call for call in script.all(cst.Call) if here.homes.has(call.func)), None)
    if made is None:
        return {}
    found = {name: value(script, argument(made, name, 0 if name == "prompt" else None)) for name in names}
    return {name: worth for name, worth in found.items() if worth is not UNKNOWN and worth is not None}
