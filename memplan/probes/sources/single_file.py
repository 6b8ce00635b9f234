"""A checkpoint of one file becomes a twin: the library says which model it is, and the bundled configs say the rest.

The file's header gives names, shapes and dtypes. diffusers tells models apart by a few of them; that a model is the
bundled one is checked by the number of elements of its denoiser, or, of a GGUF file, by every shape.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memplan.catalogue.models import BundledModel, Part, find, is_bundled, names
from memplan.errors import BadInput, Unsupported
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources.assembly import DTYPES
from memplan.probes.sources.bundled import bundled_twin, twin_of
from memplan.probes.sources.gguf import with_gguf
from memplan.probes.sources.gguf_headers import SUFFIX, gguf_tensors
from memplan.probes.sources.headers import StoredTensor, stored_tensors

DENOISER = ("model.diffusion_model.",)
"""The prefix of the denoiser's tensors where a checkpoint holds more than a denoiser."""
OTHERS = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g.", "text_encoders.t5xxl."),
    "text_encoder_3": ("text_encoders.t5xxl.",),
}
"""The prefixes of the other components: of CompVis' and Stability's checkpoints, and of ComfyUI's."""
LEFT_OUT = ("safety_checker", "feature_extractor")
"""What a pipeline's from_single_file() leaves out, because no checkpoint of one file holds it."""
TEXT_ENCODER = "text_encoder"
"""How the names of components begin that diffusers finds in a checkpoint only when it loads the pipeline from it."""
ANYTHING = "v1"
"""What diffusers takes a checkpoint for in which it finds nothing that it knows."""


@dataclass(frozen=True)
class _Contents:
    """The tensors of a checkpoint by component; `denoiser` is the component that every checkpoint holds."""

    denoiser: str
    tensors: Mapping[str, list[StoredTensor]]


def file_twin(path: Path, dtype: str | None = None) -> Twin:
    """The twin of the pipeline in one safetensors or GGUF file, completed from the bundled model of its family.

    Without `dtype` each component has the dtype that most of it is stored in; the layers of a GGUF file compute in the
    published one. Raises BadInput for a file that is not whole or no model that diffusers knows, Unsupported for one
    whose family is not bundled.
    """
    if path.suffix == SUFFIX:
        return _gguf_twin(path, dtype)
    if path.suffix != ".safetensors":
        raise Unsupported(f"{path} is no safetensors or GGUF file: convert it, or give a folder.")
    stored = stored_tensors(path)
    model = _family(path, stored)
    contents = _contents(model, stored)
    assumed = _assumptions(path, model, contents)
    held = [key for key, tensors in contents.tensors.items() if tensors]
    absent = LEFT_OUT if any(key.startswith(TEXT_ENCODER) for key in held) else ()
    parts = {key: _as_stored(key, part, contents) for key, part in model.components.items() if key not in absent}
    twin = twin_of(replace(model, components=parts), dtype)
    _check_size(path, model, twin, contents)
    loaded = {key: dtype or parts[key].dtype or model.dtype for key in held}
    cast = frozenset(key for key in held if _dtype(contents.tensors[key]) != loaded[key].removeprefix("torch."))
    return replace(twin, name=path.name, assumptions=assumed, files=dict.fromkeys(held, str(path)), cast=cast)


def _gguf_twin(path: Path, dtype: str | None) -> Twin:
    """A denoiser alone: no other component is published as a GGUF file that diffusers loads."""
    model = _family(path, gguf_tensors(path))
    denoiser = _denoiser(model)
    twin = with_gguf(bundled_twin(model.name, dtype), denoiser, path)
    others = ", ".join(key for key in twin.components() if key != denoiser)
    said = f"{path.name} holds no {others}: taken from {model.hub}"
    return replace(twin, name=path.name, assumptions=(said,))


def _family(path: Path, stored: Mapping[str, Any]) -> BundledModel:
    """The bundled model of the checkpoint's family, which the library finds by names and shapes."""
    from diffusers.loaders import single_file_utils as known

    unknown = BadInput(f"diffusers knows no model by the tensors of {path}: give the folder of the whole pipeline.")
    try:
        family = known.infer_diffusers_model_type(stored)
    except (LookupError, NameError) as error:  # it trusts the shapes of the tensors by which it tells models apart
        raise unknown from error
    if family == ANYTHING and known.CHECKPOINT_KEY_NAMES[ANYTHING] not in stored:
        raise unknown
    hub_id = known.DIFFUSERS_DEFAULT_PIPELINE_PATHS[family]["pretrained_model_name_or_path"]
    if not is_bundled(hub_id):
        raise Unsupported(f"{path} is a {family}, which is not bundled ({', '.join(names())}): give {hub_id} itself.")
    return find(hub_id)


def _contents(model: BundledModel, stored: Mapping[str, StoredTensor]) -> _Contents:
    denoiser = _denoiser(model)
    tensors = {key: _named(stored, OTHERS[key]) for key in OTHERS if key in model.components}
    others = tuple(prefix for prefixes in OTHERS.values() for prefix in prefixes)
    alone = [tensor for name, tensor in stored.items() if not name.startswith(others)]
    return _Contents(denoiser, {**tensors, denoiser: _named(stored, DENOISER) or alone})


def _denoiser(model: BundledModel) -> str:
    return "unet" if "unet" in model.components else "transformer"


def _named(stored: Mapping[str, StoredTensor], prefixes: tuple[str, ...]) -> list[StoredTensor]:
    return [tensor for name, tensor in stored.items() if name.startswith(prefixes)]


def _as_stored(key: str, part: Part, contents: _Contents) -> Part:
    """The bundled component in the dtype of the file, where the file holds it in one that weights are loaded in."""
    dtype = _dtype(contents.tensors.get(key, ()))
    return replace(part, dtype=dtype) if dtype in DTYPES else part


def _dtype(tensors: Iterable[StoredTensor]) -> str | None:
    """The dtype of most elements."""
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.numel
    return elements.most_common(1)[0][0] if elements else None


def _assumptions(path: Path, model: BundledModel, contents: _Contents) -> tuple[str, ...]:
    """A sentence about what the file does not hold, and one about what is stored smaller than it is loaded."""
    dtypes = {key: _dtype(tensors) for key, tensors in contents.tensors.items()}
    absent = [key for key, dtype in dtypes.items() if dtype is None]
    stored = [f"{key} as {dtype}" for key, dtype in dtypes.items() if dtype is not None and dtype not in DTYPES]
    said = [f"{path.name} holds no {', '.join(absent)}: taken from {model.hub}"] if absent else []
    said += [f"{path.name} stores {', '.join(stored)}: loaded in {model.dtype}"] if stored else []
    return tuple(said)


def _check_size(path: Path, model: BundledModel, twin: Twin, contents: _Contents) -> None:
    """Raises Unsupported where the denoiser is not as large as the bundled one."""
    found = sum(tensor.numel for tensor in contents.tensors[contents.denoiser])
    expected = sum(tensor.numel() for tensor in twin.components()[contents.denoiser].state_dict().values())
    if found != expected:
        raise Unsupported(
            f"{path} is like {model.name}, but its {contents.denoiser} has {found:,} elements instead of {expected:,}: "
            f"give the folder of the whole pipeline."
        )
