"""The Python face: probe, recommend, price and auto_optimize take the arguments of the pipeline itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan import planner
from memplan.errors import BadInput, NothingFits
from memplan.faces import store
from memplan.facts import Facts, Machine, Model, Trace
from memplan.planner import Plan, Recommendation
from memplan.probe.machine import probe_machine
from memplan.registry import parse, strategies
from memplan.strategy import Strategy

if TYPE_CHECKING:
    from memplan.applier import Applied
    from memplan.probe.twin import Twin

Progress = Callable[[str], None]
LIBRARIES = ("memplan", "torch", "diffusers", "transformers", "accelerate")
PROMPT = "A lighthouse on a cliff above a stormy sea at dusk, waves breaking on the rocks below, oil on canvas"
"""The prompt of a call that names none: of usual length."""


@dataclass(frozen=True)
class Target:
    """The machine to plan for. `gpu` is a name from the catalogue, the sizes are GiB; what is None is measured here."""

    gpu: str | None = None
    vram: float | None = None
    ram: float | None = None
    reserve: float = 0.0


HERE = Target()


def machine(target: Target = HERE) -> Machine:
    """The machine that `target` names, the rest measured. Raises BadInput for an unknown card or a size below zero."""
    return probe_machine(gpu=target.gpu, vram=target.vram, ram=target.ram, reserve=target.reserve)


def probe(source: Any, *, dtype: str | None = None) -> Model:
    """What a pipeline is made of; `source` is a live pipeline, a folder or the name of a bundled model."""
    from memplan.probe.pipeline import measure
    from memplan.probe.sources import open_pipeline

    twin = open_pipeline(source, dtype)
    return measure(twin.pipe, twin.name, twin.source)


def facts(
    source: Any,
    call: Mapping[str, Any],
    *,
    target: Target = HERE,
    dtype: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Facts:
    """Everything measured: the machine, and the model and dry run of `call`, from the cache where they are known.

    Only named and saved models are cached: a live pipeline may change between two calls.
    """
    here = machine(target)
    _need_gpu(here)
    name = _key(source, call, dtype) if cache else None
    known = store.load(name) if name else None
    if known is None:
        known = _measured(source, call, dtype, progress)
        if name:
            store.save(name, *known)
    return Facts(here, *known)


def _measured(
    source: Any, call: Mapping[str, Any], dtype: str | None, progress: Progress | None
) -> tuple[Model, Trace]:
    from memplan.probe.pipeline import measure
    from memplan.probe.sources import open_pipeline
    from memplan.probe.trace import dry_run

    if progress:
        progress("reading the pipeline")
    twin = open_pipeline(source, dtype)
    model = measure(twin.pipe, twin.name, twin.source)
    return model, dry_run(twin, _arguments(twin, call), progress=progress)


def _arguments(twin: "Twin", call: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments, with the published example's for what the pipeline has no default of its own."""
    given = {name: value for name, value in call.items() if value is not None}
    embedded = any(name.endswith("prompt_embeds") for name in given)
    prompt = {} if embedded else {"prompt": PROMPT}
    return {**prompt, **twin.call, **given}


def _key(source: Any, call: Mapping[str, Any], dtype: str | None) -> str | None:
    """The cache's name for these facts, or None where they can't be kept."""
    if not isinstance(source, str | Path) or not all(_plain(value) for value in call.values()):
        return None
    folder = Path(source).expanduser()
    content = _fingerprint(folder) if folder.is_dir() else ()
    versions = {library: version(library) for library in LIBRARIES}
    return store.key({"source": str(source), "content": content, "call": dict(call), "dtype": dtype, **versions})


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells two states of a saved pipeline apart: names, sizes and dates of its files."""
    files = sorted(p for p in folder.glob("**/*") if p.is_file())
    return tuple((str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files)


def recommend(
    source: Any,
    *,
    target: Target = HERE,
    dtype: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    **call: Any,
) -> Recommendation:
    """Weigh every plan for this pipeline, call and machine.

    `call` are the arguments of the pipeline itself: prompt, height, num_frames … Raises BadInput for a source, an
    argument or a machine that does not exist.
    """
    measured = facts(source, call, target=target, dtype=dtype, cache=cache, progress=progress)
    return planner.recommend(measured, strategies())


def price(
    source: Any,
    plan: Sequence[str | Strategy],
    *,
    target: Target = HERE,
    dtype: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    **call: Any,
) -> Plan:
    """The bill of a plan the caller names, e.g. ["model_offload", "vae_tiling"].

    Components without a placement stay on the device. Raises BadInput when a strategy refuses to join, in its words.
    """
    measured = facts(source, call, target=target, dtype=dtype, cache=cache, progress=progress)
    chosen = [parse(s, measured) if isinstance(s, str) else s for s in plan]
    return planner.seated(measured, chosen)


def auto_optimize(
    pipe: Any,
    *,
    prefer: str = "balanced",
    target: Target = HERE,
    device: str = "cuda",
    progress: Progress | None = None,
    **call: Any,
) -> "Applied":
    """Plan for a live pipeline and this call, and apply the pick of that preference to it.

    `prefer` is "quality", "speed", "memory" or "balanced". The value undoes it. The plan is for the memory of `target`
    and for what `device` can do: a rehearsal on "cpu" has no streams and no device context. Raises NothingFits when no
    plan fits, BadInput for an unknown preference.
    """
    from memplan.applier import apply

    if prefer not in planner.PREFERENCES:
        raise BadInput(f"unknown preference {prefer!r}: use one of {', '.join(planner.PREFERENCES)}")
    measured = facts(pipe, call, target=target, progress=progress)
    found = planner.recommend(_of_kind(device, measured), strategies())
    plan = found.pick(prefer)
    if plan is None:
        raise NothingFits(planner.shortage(found.nearest))
    return apply(plan.strategies, pipe, device)


def _of_kind(device: str, measured: Facts) -> Facts:
    """The same facts on a device of the kind that torch names."""
    kind, gpu = device.partition(":")[0], measured.machine.gpu
    if gpu is None or kind in (gpu.kind, "cuda" if gpu.kind == "rocm" else ""):
        return measured
    return replace(measured, machine=replace(measured.machine, gpu=replace(gpu, kind=kind)))


def nearest_call(
    source: Any,
    found: Recommendation,
    *,
    target: Target = HERE,
    dtype: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    **call: Any,
) -> tuple[dict[str, Any], Plan] | None:
    """The nearest smaller call that fits where `found` does not: fewer images, fewer frames, or fewer pixels.

    None when no smaller call of those tried fits.
    """
    for change in smaller_calls(found.facts.trace, call):
        try:
            other = recommend(source, target=target, dtype=dtype, cache=cache, progress=progress, **{**call, **change})
        except BadInput:
            continue
        if other.picks:
            return change, other.picks[0][1]
    return None


def smaller_calls(trace: Trace, call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Changes of a call that make it smaller, the least change first."""
    known = {**dict(trace.arguments), **call}
    changes: list[dict[str, Any]] = []
    images, frames = _number(known.get("num_images_per_prompt")), _number(known.get("num_frames"))
    if images and images > 1:
        changes.append({"num_images_per_prompt": 1})
    fewer = [(frames * part // 4 - 1) // 4 * 4 + 1 for part in (3, 2, 1)] if frames else []
    changes += [{"num_frames": number} for number in dict.fromkeys(fewer) if number > 0]
    height, width = _number(known.get("height")), _number(known.get("width"))
    if height and width:
        sizes = [(height * part // 8 // 32 * 32, width * part // 8 // 32 * 32) for part in (6, 4, 3)]
        changes += [{"height": high, "width": wide} for high, wide in dict.fromkeys(sizes) if high and wide]
    return changes


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else None


def _need_gpu(here: Machine) -> None:
    if here.gpu is None:
        raise BadInput('no GPU is visible here: name one to plan for, e.g. --gpu "RTX 4070" or --vram 12')
