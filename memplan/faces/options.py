"""Further arguments of from_pretrained(), and which call of the libraries takes which of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memplan.errors import BadInput
from memplan.probes.sources import is_hub_id

ON_THE_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
"""Those that every call takes."""
OF_WEIGHTS = ("use_safetensors", "variant")
"""Those that choose among files of weights; in a checkpoint of one file there is nothing to choose."""
REVISION = "revision"
DTYPES = ("dtype", "torch_dtype")
PLANNED = (
    "device_map", "disable_mmap", "low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict",
    "quantization_config",
)  # fmt: skip
"""Those that decide what the plan decides, or what its bill rests on."""


@dataclass(frozen=True)
class Options:
    """Arguments by the calls that take them, and `parts`: components to use in place of the pipeline's own."""

    hub: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""
    dtype: str | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """The variant of the files of weights, "" for none."""
        return self.weights.get("variant") or ""

    def source(self, source: str | Path) -> str | Path:
        """`source` at the revision that is asked for, where it is an id on the Hub that names none."""
        return f"{source}@{self.revision}" if self.revision and is_hub_id(source) and "@" not in str(source) else source

    def pretrained(self) -> dict[str, Any]:
        """What from_pretrained() takes, of a component as of a pipeline."""
        return {**self.hub, **self.weights, **self._revision(REVISION)}

    def single_file(self) -> dict[str, Any]:
        """What a component's from_single_file() takes; the revision is that of its config, as the file has none."""
        return {**self.hub, **self._revision("config_revision")}

    def whole_file(self) -> dict[str, Any]:
        """What a pipeline's from_single_file() takes."""
        return {**self.hub, **self._revision(REVISION)}

    def _revision(self, name: str) -> dict[str, str]:
        return {name: self.revision} if self.revision else {}


def read_options(given: Mapping[str, Any], dtype: str | None) -> Options:
    """What `given` means, beside a `dtype` given by itself. What is no argument is taken for a component.

    Raises BadInput for what the plan decides, and for dtypes that contradict each other or are not one dtype.
    """
    for name in PLANNED:
        if name in given:
            raise BadInput(f"{name} is for the plan to decide: leave it out of options")
    hub = {name: given[name] for name in ON_THE_HUB if name in given}
    weights = {name: given[name] for name in OF_WEIGHTS if name in given}
    known = (*ON_THE_HUB, *OF_WEIGHTS, REVISION, *DTYPES)
    parts = {name: value for name, value in given.items() if name not in known}
    return Options(hub, weights, given.get(REVISION) or "", _dtype(given, dtype), parts)


def _dtype(given: Mapping[str, Any], dtype: str | None) -> str | None:
    asked = [dtype, *(given.get(name) for name in DTYPES)]
    if any(isinstance(one, Mapping) for one in asked):
        raise BadInput("dtype is one for all components: leave it out to have each as it is stored")
    names = {str(one).removeprefix("torch.") for one in asked if one is not None}
    if len(names) > 1:
        raise BadInput(f"dtype is {' and '.join(sorted(names))}: give one")
    return names.pop() if names else None
