"""Components and a pipeline class become a twin."""

from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.errors import BadInput
from memplan.probe.twin import Twin

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The dtypes a pipeline can be loaded in."""


def dtype_named(name: str) -> torch.dtype:
    """The torch dtype of that name. Raises BadInput for one that pipelines are not loaded in."""
    plain = name.removeprefix("torch.")
    if plain not in DTYPES:
        raise BadInput(f"dtype {name!r} is not one that weights are loaded in; use {', '.join(DTYPES)}.")
    return DTYPES[plain]


def assemble(pipeline: Any, parts: Mapping[str, Any], mode: FakeTensorMode, name: str, source: str) -> Twin:
    """The twin of `pipeline` made of `parts`: components and the other arguments of its constructor."""
    pipe = pipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return Twin(pipe, mode, name, source)
