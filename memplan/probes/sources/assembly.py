"""Components and a pipeline class become a twin."""

from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.errors import BadInput
from memplan.probes.fakes.twin import Twin

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The dtypes that weights are loaded in, by name."""


def dtype_named(name: str) -> torch.dtype:
    """The torch dtype of that name. Raises BadInput for one that weights are not loaded in."""
    plain = name.removeprefix("torch.")
    if plain not in DTYPES:
        raise BadInput(f"weights are not loaded in dtype {name!r}. Use one of {', '.join(DTYPES)}.")
    return DTYPES[plain]


def assemble(pipeline: Any, parts: Mapping[str, Any], mode: FakeTensorMode, name: str, source: str) -> Twin:
    """The twin of class `pipeline` made of `parts`: components and other arguments of its constructor.

    As from_pretrained does, what the constructor does not know is left out and optional components that are absent
    are None. Raises BadInput when a component is missing or does not suit the pipeline.
    """
    components, settings = map(set, pipeline._get_signature_keys(pipeline))
    absent = sorted(components - set(parts) - set(pipeline._optional_components))
    if absent:
        raise BadInput(f"{name} has no {', '.join(absent)}, which {pipeline.__name__} needs.")
    known = {key: parts.get(key) for key in components} | {key: parts[key] for key in settings & set(parts)}
    try:
        pipe = pipeline(**known)
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"the components of {name} do not make a {pipeline.__name__}: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    return Twin(pipe, mode, name, source)
