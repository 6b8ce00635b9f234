"""A bundled model becomes a twin: the published configs, in the dtypes of the published example."""

from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.catalogue.models import BundledModel, Part, find
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources.assembly import assemble, dtype_named
from memplan.probes.sources.skeleton import class_of, fake_module, is_module
from memplan.probes.sources.tokenizers import stand_in_tokenizer


def bundled_twin(name: str, dtype: str | None = None) -> Twin:
    """The twin of a bundled model. `dtype` overrides the published one for every component with weights.

    Raises BadInput for an unknown name or dtype.
    """
    return twin_of(find(name), dtype)


def twin_of(model: BundledModel, dtype: str | None = None) -> Twin:
    """The same of a model at hand."""
    mode = fresh_mode()
    parts = {
        key: _component(part, dtype_named(dtype or part.dtype or model.dtype), mode)
        for key, part in model.components.items()
    }
    pipeline = class_of("diffusers", model.pipeline)
    twin = assemble(pipeline, {**parts, **model.arguments}, mode, model.name, f"bundled {model.name}")
    return replace(twin, call=model.call)


def _component(part: Part, dtype: torch.dtype, mode: FakeTensorMode) -> Any:
    """A component: fake weights for a module, a stand-in for a tokenizer, the real thing for everything else."""
    if part.library == "memplan":
        return stand_in_tokenizer(part.config)
    cls = class_of(part.library, part.class_name)
    if is_module(cls):
        return fake_module(cls, part.config, dtype, mode)
    return cls.from_config(dict(part.config)) if hasattr(cls, "from_config") else cls(**part.config)
