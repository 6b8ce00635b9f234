"""Components in memory in place of those that a source has."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from memplan.errors import BadInput
from memplan.probes.fakes.twin import Twin, live_twin
from memplan.probes.sources.assembly import assemble
from memplan.probes.sources.modules import as_pipeline


def with_parts(twin: Twin, parts: Mapping[str, Any]) -> Twin:
    """`twin` with `parts` in place of its own: copies of them, modules without their weights; None takes one out.

    The weights of such modules are in memory already, as those of a live pipeline: what the host has available is
    without them, so they count for nothing while the rest is loaded. Raises BadInput for what is no component.
    """
    cls: Any = type(twin.pipe)
    components, settings = map(set, cls._get_signature_keys(cls))
    for name, part in parts.items():
        if name not in components:
            known = ", ".join(sorted(components))
            raise BadInput(
                f"{name!r} is no option of loading, and {cls.__name__} takes no such component; it takes: {known}"
            )
        if isinstance(part, str | int | float):
            raise BadInput(f"{name} is {part!r}: give the component itself, loaded")
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    fakes = live_twin(as_pipeline(modules), twin.mode).components() if modules else {}
    others = {name: copy.deepcopy(part) for name, part in parts.items() if name not in modules}
    kept = {name: twin.pipe.config[name] for name in settings if name in twin.pipe.config}
    made = assemble(cls, {**kept, **twin.pipe.components, **fakes, **others}, twin.mode, twin.name, twin.source)
    files = {name: file for name, file in twin.files.items() if name not in parts}
    return replace(twin, pipe=made.pipe, files=files, cast=twin.cast - set(parts))
