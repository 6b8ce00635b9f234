"""What is measured before anything is weighed: the machine, the pipeline and a dry run of one call."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memplan.errors import NoGpu
from memplan.faces import store
from memplan.faces.history.learned import with_learned
from memplan.faces.keys import KERNELS, NEWER, OLDER, key
from memplan.faces.quiet import libraries_quiet
from memplan.faces.target import HERE, Target, machine
from memplan.facts import Differentiable, Facts, Machine, Model, Trace, Training
from memplan.probes.fakes.sizes import check_sizes
from memplan.probes.sources import look, open_pipeline
from memplan.strategy import Switch

if TYPE_CHECKING:
    from memplan.probes.fakes.twin import Twin

Progress = Callable[[str], None]
PROMPT = "A lighthouse on a cliff above a stormy sea at dusk, waves breaking on the rocks below, oil on canvas"
"""The prompt of a call that names none: of usual length."""
NO_SWITCHES: Mapping[str, Switch] = MappingProxyType({})
NO_PARTS: Mapping[str, Any] = MappingProxyType({})


def probe(source: Any, *, dtype: str | None = None, variant: str = "") -> Model:
    """What a pipeline is made of.

    `source` is a live pipeline, a module, modules by name, a folder, a checkpoint file, a Hub id or a bundled name;
    `dtype` and the `variant` of its files, as "fp16", are what from_pretrained() takes.

    Raises BadInput for a source that does not exist.
    """
    look(source)
    with libraries_quiet():
        return _model(open_pipeline(source, dtype, variant))


def facts(
    source: Any,
    call: Mapping[str, Any],
    *,
    target: Target = HERE,
    dtype: str | None = None,
    variant: str = "",
    cache: bool = True,
    progress: Progress | None = None,
    parts: Mapping[str, Any] = NO_PARTS,
    switches: Mapping[str, Switch] = NO_SWITCHES,
    train: Training | None = None,
    differentiable: Differentiable | None = None,
) -> Facts:
    """Everything measured: the machine, and the model and dry run of `call`, from the cache where they are known.

    `parts` are components in memory that replace those of a source; `switches` do the ways to call components that the
    dry run follows besides, by name. With `train` such a step is followed, and the model is what it trains; with
    `differentiable` what of the call keeps gradients is followed too. Only named and saved models without such parts
    are cached: what is live may change between two calls. A source or a machine that does not exist, and a size below
    one, is found before torch is imported.
    """
    check_sizes(call)
    look(source)
    here = machine(target)
    if here.gpu is None:
        raise NoGpu("No GPU is visible here to plan for.")
    kept = cache and not parts
    asked: dict[str, Any] = {"train": train, "differentiable": differentiable}
    name = key(source, call, dtype, _capability(here), sorted(switches), variant=variant, **asked) if kept else None
    known = store.load(name) if name else None
    if known is None:
        with libraries_quiet():
            if progress:
                progress("reading the pipeline")
            twin = _opened(source, dtype, variant, parts)
            known = _measured(source, twin, call, _capability(here), progress=progress, switches=switches, **asked)
        if name:
            store.save(name, *known)
    model, trace = known
    return Facts(with_learned(here, model) if target.is_here else here, model, trace, train, differentiable)


def _model(twin: "Twin") -> Model:
    from memplan.probes.pipeline import measure

    return replace(measure(twin.pipe, twin.name, twin.source, twin.files, twin.cast), variant=twin.variant)


def _model_of(trace: Trace, twin: "Twin") -> Model:
    """The one component that a training step trains, with its adapters."""
    model = _model(twin)
    return replace(model, components=(model.component(trace.calls[0].component),), offload_order=())


def _opened(source: Any, dtype: str | None, variant: str, parts: Mapping[str, Any]) -> "Twin":
    from memplan.probes.sources.given import with_parts

    twin = open_pipeline(source, dtype, variant)
    return with_parts(twin, parts) if parts else twin


def _measured(
    source: Any,
    twin: "Twin",
    call: Mapping[str, Any],
    capability: tuple[int, int],
    *,
    progress: Progress | None,
    switches: Mapping[str, Switch],
    train: Training | None,
    differentiable: Differentiable | None,
) -> tuple[Model, Trace]:
    from memplan.faces.sampling.asked import in_tensors
    from memplan.probes.fakes.twin import modules_of
    from memplan.probes.pipeline.rounding import measured
    from memplan.probes.sources.modules import as_pipeline
    from memplan.probes.trace import check, dry_run
    from memplan.probes.trace.differentiating import dry_run_with_gradients
    from memplan.probes.trace.training import dry_run_of_training

    arguments = _arguments(twin, call)
    check(twin.pipe, arguments)
    if train:
        how = train, KERNELS, capability
        trace = dry_run_of_training(twin, arguments, *how, progress=progress, switches=switches)
        return _model_of(trace, twin), trace
    model = _model(twin)
    if differentiable:
        arguments = in_tensors(twin.pipe, arguments)
        trace = dry_run_with_gradients(twin, arguments, KERNELS, capability, progress=progress, switches=switches)
        return model, trace
    if not isinstance(source, str | Path):
        model = measured(model, modules_of(as_pipeline(source)))
    return model, dry_run(twin, arguments, KERNELS, progress, capability, switches=switches)


def _capability(here: Machine) -> tuple[int, int]:
    """The least compute capability with the attention kernels of this machine; of an unknown card those of today."""
    gpu = here.gpu
    old = gpu is not None and gpu.kind == "cuda" and gpu.capability is not None and gpu.capability < NEWER
    return OLDER if old else NEWER


def _arguments(twin: "Twin", call: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments, with the published example's for what the pipeline has no default of its own."""
    given = {name: value for name, value in call.items() if value is not None}
    takes = "prompt" in signature(type(twin.pipe).__call__).parameters
    embedded = any(name.endswith("prompt_embeds") for name in given)
    prompt = {"prompt": PROMPT} if takes and not embedded else {}
    return {**prompt, **twin.call, **given}
