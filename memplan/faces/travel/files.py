"""Writes a plan into a file, reads it, and applies it where it comes to: after it was priced anew there."""

import json
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from memplan.errors import BadInput, NoRoom
from memplan.faces.live import auto_optimize
from memplan.faces.target import HERE, Target, machine, numbered
from memplan.faces.travel.schema import faults, schema
from memplan.facts import GIB
from memplan.planner import Plan
from memplan.planner.saved import Saved
from memplan.registry import check_names

LOG = logging.getLogger("memplan")
FORMAT = 1
"""Of the files that are written, and the only one that is read."""


# ---- files -----------------------------------------------------------------------------------------------------------
def save(plan: Plan, path: str | Path, call: Mapping[str, Any], dtype: str | None = None) -> Path:
    """Write `plan` for a call with these arguments; `dtype` is the one that was asked for. The value is the file.

    Raises BadInput for an argument that a file cannot hold, and where the file cannot be written.
    """
    file = Path(path).expanduser()
    try:
        text = json.dumps(_content(plan, call, dtype), indent=2, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the call of the plan cannot be saved: {error}; leave that argument out") from None
    try:
        file.write_text(f"{text}\n", "utf-8")
    except OSError as error:
        raise BadInput(f"the plan cannot be saved in {file}: {error.strerror or error}") from None
    return file


def load(path: str | Path) -> Saved:
    """The plan in a file. Raises BadInput for one that is none, is of another format, or has other fields."""
    file = Path(path).expanduser()
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"the plan {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(f"{path} is no plan of memplan, which is JSON: {error}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and not isinstance(found, bool) and found != FORMAT:
        older = "a newer memplan wrote it: upgrade this one" if found > FORMAT else "make the plan anew"
        raise BadInput(f"{path} has format {found}, and this memplan reads format {FORMAT}; {older}")
    wrong = list(faults(content, schema()))
    if wrong:
        raise BadInput(f"{path} is no plan of format {FORMAT}: {'; '.join(wrong)}")
    check_names(content["plan"])
    return Saved(**{name: value for name, value in content.items() if name != "format"})


def _content(plan: Plan, call: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
    model, here = plan.run.facts.model, plan.run.facts.machine
    peak, host, bill = plan.bill.peak.memory, plan.bill.host, plan.bill
    parts = [{"name": c.name, "class": c.class_name, "dtype": c.dtype, "size": c.size} for c in model.components]
    return {
        "format": FORMAT,
        "plan": str(plan),
        "reason": plan.reason,
        "model": {
            "name": model.name,
            "source": model.source,
            "class": model.class_name,
            "dtype": dtype,
            "variant": model.variant,
            "size": model.size,
            "components": parts,
        },
        "call": {name: value for name, value in call.items() if value is not None},
        "machine": {
            "gpu": here.gpu.name if here.gpu else None,
            "total": here.gpu.total if here.gpu else 0,
            "vram": max(here.vram, 0),
            "ram": max(here.ram, 0),
            "system": here.host.system,
        },
        "versions": {"memplan": version("memplan"), **dict(model.versions)},
        "predicted": {
            "allocated": peak.allocated,
            "reserved": peak.reserved,
            "required": peak.required,
            "ram": host.peak,
            "pinned": host.pinned,
            "seconds": bill.seconds,
            "first_call": bill.first,
            "loss": bill.loss.word,
        },
    }


# ---- somewhere else --------------------------------------------------------------------------------------------------
def apply(
    saved: Saved, pipe: Any, *, device: str = "cuda", force: bool = False, target: Target = HERE, **call: Any
) -> Any:
    """Price the plan for `pipe`, this machine and these versions, and apply it. Raises as Saved.apply() says."""
    kind = type(pipe).__name__
    if kind != saved.model["class"]:
        raise BadInput(f"the plan was made for {saved.model['class']}, and this is a {kind}: plan for it by itself")
    others = tuple(_others(saved, target, device))
    for other in others:
        LOG.warning("the plan is priced anew: %s.", other)
    try:
        return auto_optimize(pipe, saved.plan, device=device, force=force, target=target, **(call or saved.call))
    except NoRoom as error:
        raise NoRoom(f"{error.why} {_then(saved)}{''.join(f' Now {other}.' for other in others)}") from None


def _others(saved: Saved, target: Target, device: str) -> Iterator[str]:
    """How this machine and its libraries differ from those that the plan was made with."""
    there, here = saved.machine, machine(numbered(target, device))
    card, total = (here.gpu.name, here.gpu.total) if here.gpu else (None, 0)
    if (card, total) != (there["gpu"], there["total"]):
        then = f"{there['gpu']} of {there['total'] / GIB:.2f} GiB"
        now = f"the card is {card} of {total / GIB:.2f} GiB" if card else "there is no card"
        yield f"{now}, not {then}" if card else f"{now}; it was made for {then}"
    for library, then in saved.versions.items():
        now = installed(library)
        if now != then:
            yield f"{library} is {now or 'not installed'}, not {then}"


def installed(library: str) -> str:
    """The version of a library, "" where it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _then(saved: Saved) -> str:
    there, needed, ram = (
        size / GIB for size in (saved.machine["vram"], saved.predicted["required"], saved.predicted["ram"])
    )
    took = f"predicted to take {needed:.2f} GiB and {ram:.2f} GiB of RAM"
    return f"It was made for {there:.2f} GiB of device memory, and {took}."
