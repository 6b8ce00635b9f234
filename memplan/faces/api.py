"""The Python face: probe, recommend and price take the arguments of the pipeline itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from inspect import signature
from os.path import expanduser, isfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memplan import planner
from memplan.errors import BadInput, NoGpu
from memplan.faces import store
from memplan.faces.calibrated import with_measured
from memplan.faces.limits import read_limits
from memplan.faces.quiet import libraries_quiet
from memplan.facts import Facts, Machine, Model, Trace
from memplan.planner import Plan, Recommendation
from memplan.probes.fakes.sizes import check_sizes
from memplan.probes.machine import probe_machine
from memplan.probes.sources import identity, look, open_pipeline
from memplan.registry import check_names, parse, parse_plan, strategies, switches
from memplan.strategy import Decision, Strategy, Switch

if TYPE_CHECKING:
    from memplan.probes.fakes.twin import Twin

Progress = Callable[[str], None]
LIBRARIES = ("memplan", "torch", "diffusers", "transformers", "accelerate")
OLDER, NEWER = (7, 0), (8, 0)
"""Compute capabilities from which PyTorch chooses other attention kernels; a dry run is made for one of them."""
PROMPT = "A lighthouse on a cliff above a stormy sea at dusk, waves breaking on the rocks below, oil on canvas"
"""The prompt of a call that names none: of usual length."""
NO_SWITCHES: Mapping[str, Switch] = MappingProxyType({})
KERNELS = "cuda"
"""The kind of device whose kernels a dry run assumes."""

NO_PARTS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Target:
    """The machine to plan for. `gpu` is a name from the catalogue, the sizes are GiB; what is None is measured here.

    `limit` says what of it a plan may take, and how long and how lossy it may be: read_limits() has the words. Of
    several GPUs here `index` is the number by which torch calls the one to plan for, as in "cuda:1".
    """

    gpu: str | None = None
    vram: float | None = None
    ram: float | None = None
    reserve: float = 0.0
    limit: str = ""
    index: int = 0


HERE = Target()


def machine(target: Target = HERE) -> Machine:
    """The machine that `target` names, the rest measured; where it names no card, with the rates of a calibration.

    Raises NoGpu for an unknown card, and BadInput for a size below zero, an unknown limit and for what is no Target.
    """
    given: Any = target  # callers without type checkers hand over names
    if not isinstance(given, Target):
        name = given if isinstance(given, str) else "RTX 4070"
        raise BadInput(f'target is {given!r}: write target=memplan.Target(gpu="{name}")')
    limits = read_limits(target.limit)
    here = probe_machine(target.gpu, target.vram, target.ram, target.reserve, target.index)
    here = with_measured(here) if target.gpu is None and target.vram is None else here
    return replace(here, limits=limits)


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
) -> Facts:
    """Everything measured: the machine, and the model and dry run of `call`, from the cache where they are known.

    `parts` are components in memory that replace those of a source; `switches` do the ways to call denoisers that the
    dry run follows besides, by name. Only named and saved models without such parts are cached: what is live may change
    between two calls. A source or a machine that does not exist, and a size below one, is found before torch is
    imported.
    """
    check_sizes(call)
    look(source)
    here = machine(target)
    if here.gpu is None:
        raise NoGpu("No GPU is visible here to plan for.")
    kept = cache and not parts
    name = _key(source, call, dtype, _capability(here), sorted(switches), variant=variant) if kept else None
    known = store.load(name) if name else None
    if known is None:
        with libraries_quiet():
            if progress:
                progress("reading the pipeline")
            twin = _opened(source, dtype, variant, parts)
            known = _measured(source, twin, call, _capability(here), progress=progress, switches=switches)
        if name:
            store.save(name, *known)
    return Facts(here, *known)


def _model(twin: "Twin") -> Model:
    from memplan.probes.pipeline import measure

    return replace(measure(twin.pipe, twin.name, twin.source, twin.files, twin.cast), variant=twin.variant)


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
) -> tuple[Model, Trace]:
    from memplan.probes.fakes.twin import modules_of
    from memplan.probes.pipeline.rounding import measured
    from memplan.probes.sources.modules import as_pipeline
    from memplan.probes.trace import check, dry_run

    arguments = _arguments(twin, call)
    check(twin.pipe, arguments)
    model = _model(twin)
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


def _key(
    source: Any,
    call: Mapping[str, Any],
    dtype: str | None,
    capability: tuple[int, int] = NEWER,
    ways: Sequence[str] = (),
    *,
    variant: str = "",
) -> str | None:
    """The cache's name for these facts, or None where they can't be kept."""
    if not isinstance(source, str | Path) or not all(_plain(value) for value in call.values()):
        return None
    content = identity(source)
    versions = {library: version(library) for library in LIBRARIES}
    place = {"source": str(source), "content": content, "files": _files(call)}
    kernels = {"kernels": KERNELS, "capability": capability, "ways": list(ways)}
    return store.key(
        {**place, "call": dict(call), "dtype": dtype, "variant": variant, **kernels, "program": _program(), **versions}
    )


def _program() -> list[tuple[str, int, int]]:
    """What tells two states of memplan's own measuring apart: in a checkout the version stays the same."""
    here = Path(__file__).parent.parent
    places = ("allocator.py", "faces/api.py", "facts/*.py", "probes/**/*.py", "catalogue/*.py", "catalogue/**/*.json")
    files = [path for place in places for path in here.glob(place)]
    return sorted((str(p.relative_to(here)), p.stat().st_size, p.stat().st_mtime_ns) for p in files)


def _files(call: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change of the arguments that name a file, as a picture may be replaced by another."""
    texts = (value for value in call.values() if isinstance(value, str))
    paths = (Path(path).resolve() for path in map(expanduser, texts) if isfile(path))  # noqa: PTH113  (Path raises)
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)


def recommend(
    source: Any,
    *,
    target: Target = HERE,
    dtype: str | None = None,
    variant: str = "",
    cache: bool = True,
    progress: Progress | None = None,
    **call: Any,
) -> Recommendation:
    """Weigh every plan for this pipeline, call and machine.

    `call` are the arguments of the pipeline itself: prompt, height, num_frames … A module takes those of its forward();
    of modules by name each that runs takes a table of its own, as in `net={"input": x}`. Raises BadInput for a source,
    an argument or a machine that does not exist.
    """
    measured = facts(source, call, target=target, dtype=dtype, variant=variant, cache=cache, progress=progress)
    if progress:
        progress("weighing plans")
    return planner.recommend(measured, strategies())


def price(
    source: Any,
    plan: Plan | str | Sequence[str | Strategy],
    *,
    target: Target = HERE,
    dtype: str | None = None,
    variant: str = "",
    cache: bool = True,
    progress: Progress | None = None,
    **call: Any,
) -> Plan:
    """The bill of a plan: text as a report writes it, e.g. "vae_tiling:vae + model_offload", parts of it, or a Plan.

    Components without a placement stay on the device. Raises BadInput when a strategy refuses to join, in its words.
    """
    parts = listed(plan)
    asked = switches(parts)
    measured = facts(
        source, call, target=target, dtype=dtype, variant=variant, cache=cache, progress=progress, switches=asked
    )
    return named(measured, parts)


def listed(plan: Any) -> Sequence[str | Strategy]:
    """A plan's parts. Raises BadInput for what is none, and for a strategy that is not installed."""
    parts = plan.strategies if isinstance(plan, Plan) else [plan] if isinstance(plan, str | Strategy) else plan
    if not (isinstance(parts, Sequence) and all(isinstance(part, str | Strategy) for part in parts)):
        raise BadInput(f'the plan is a {type(plan).__name__}: give text, as "vae_tiling:vae + model_offload"')
    for text in parts:
        if isinstance(text, str):
            check_names(text)
    return parts


def named(measured: Facts, plan: Sequence[str | Strategy]) -> Plan:
    """The plan that is named, for what is measured. Raises BadInput as `price` does."""
    chosen = (parse_plan(s, measured) if isinstance(s, str) else (s,) for s in plan)
    return planner.seated(measured, [strategy for part in chosen for strategy in part])


def placed(plan: Plan) -> list[Strategy]:
    """The plan's strategies, and on the device what it gives no place."""
    measured = plan.run.facts
    named = {seat.component for s in plan.strategies for seat in s.seats if seat.decision is Decision.PLACEMENT}
    stay = [part.name for part in measured.model.components if part.name not in named]
    return [*plan.strategies, *(parse(f"on_gpu:{name}", measured) for name in stay)]


def of_kind(device: str, measured: Facts) -> Facts:
    """The same facts on a device of the kind that torch names."""
    kind, gpu = device.partition(":")[0], measured.machine.gpu
    if gpu is None or kind in (gpu.kind, "cuda" if gpu.kind == "rocm" else ""):
        return measured
    return replace(measured, machine=replace(measured.machine, gpu=replace(gpu, kind=kind)))


def numbered(target: Target, device: str) -> Target:
    """The target, on the device of this machine that `device` numbers, as "cuda:1" does."""
    number = device.partition(":")[2]
    return replace(target, index=int(number)) if number.isdigit() else target
