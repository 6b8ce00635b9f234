"""Puts a plan into a script."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import libcst as cst

from memplan.faces.options import DTYPES, PLANNED
from memplan.faces.patching import imports
from memplan.faces.patching.added import Added, added, imports_of, statements
from memplan.faces.patching.arguments import has
from memplan.faces.patching.blocks import begin, end
from memplan.faces.patching.calls import calls
from memplan.faces.patching.chosen import Found, given_dtypes
from memplan.faces.patching.classes import check_class
from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.device import device
from memplan.faces.patching.edit import Block, Edits, edited
from memplan.faces.patching.find import Pipeline
from memplan.faces.patching.gguf import check_files
from memplan.faces.patching.homes import Homes, derived, left_out
from memplan.faces.patching.keywords import check_keywords
from memplan.faces.patching.moves import placed_before
from memplan.faces.patching.notes import notes
from memplan.faces.patching.places import place
from memplan.faces.patching.reading import Script, argument
from memplan.faces.patching.values import assigned, dtype, dtypes
from memplan.faces.report.code import device_of
from memplan.faces.report.loading import QUANTIZATION
from memplan.planner import Plan

OF_LOADS = (*PLANNED, "load_in_4bit", "load_in_8bit")
"""Arguments of a component's loading that decide what the plan decides."""


@dataclass(frozen=True)
class Patched:
    """The script with the plan in it, and what there is to know about that, in sentences."""

    source: bytes
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """How lines are written: the plan's label, a device's text with what stands for it, and names that are taken."""

    label: str
    device: tuple[str, str] | None
    taken: frozenset[str]

    def block(self, home: str, lines: tuple[str, ...], shown: str = "") -> Block:
        """The lines for the pipeline that the script calls `home`."""
        made = statements(lines, home, self.device, self.taken)
        return Block(begin(home, shown, self.label), made, end(home))


def patched(here: Found, plan: Plan) -> Patched:
    """The script with `plan` in place of what it has decided about memory by itself. Raises NotPatched."""
    script, pipeline, homes = here.script, here.pipeline, here.homes
    decided = calls(script, pipeline, homes)
    where = place(script, pipeline, homes, decided)
    on, shown = device(here, where, decided, device_of(plan))
    absent = left_out(script, pipeline, homes)
    own = {name: len(part.loads) == 1 for name, part in homes.own.items() if part.loads or _has(plan, name)}
    adding = added(plan, on, own, frozenset(absent), at_once=not pipeline.from_file)
    _check_absent(script, absent, adding)
    check_files(script, homes, plan)
    check_class(script, pipeline, adding, plan)
    edits = Edits(moves=decided.moves, dropped={*decided.dropped, *_places(script)})
    _load(here, adding, decided, edits)
    taken = frozenset(name.value for name in script.all(cst.Name))
    replaced = (device_of(plan), shown) if shown and on is None else None
    style = Style(str(plan), replaced, taken)
    if where.split:
        edits.returns[where.at] = here.home
    if adding.lines:
        places = edits.before if where.before else edits.after
        places.setdefault(where.at, []).append(style.block(here.home, adding.lines, shown))
    for _, other in derived(script, homes):
        _derive(script, other, adding, style, edits)
    _import(script, pipeline, adding, edits)
    module = _pruned(here, edited(script.module, edits))
    return Patched(module.bytes, notes(here, where, decided, adding, plan))


# ---- edits ----------------------------------------------------------------------------------------------------------
def _load(here: Found, adding: Added, decided: Calls, edits: Edits) -> None:
    """Arguments of what loads the pipeline and its components."""
    pipeline = here.pipeline
    sets: dict[str, str] = {QUANTIZATION: adding.quantized} if adding.quantized else {}
    _check_dtype(here, adding, decided)
    single = adding.dtype[:1] != "{"
    plain = not (has(pipeline.load, *DTYPES) or decided.dtypes) and adding.dtype != "torch.float32"
    sets |= {"dtype": adding.dtype} if plain and (single or not pipeline.from_file) else {}
    edits.dropped |= _unused(
        here.script, [pipeline.load, *(load for own in here.homes.own.values() for load in own.loads)]
    )
    check_keywords(here.script, pipeline.load)
    edits.margins[pipeline.load] = here.script.margin(pipeline.load)
    edits.sets[pipeline.load] = sets
    edits.unset[pipeline.load] = tuple(name for name in PLANNED if name not in sets)
    for name, own in here.homes.own.items():
        code = adding.parts.get(name)
        for load in own.loads:
            check_keywords(here.script, load)
            edits.margins[load] = here.script.margin(load)
            edits.sets[load] = {QUANTIZATION: code} if code else {}
            edits.unset[load] = tuple(option for option in OF_LOADS if not (code and option == QUANTIZATION))
    if pipeline.target is None:
        edits.returns[pipeline.statement] = here.home


def _has(plan: Plan, name: str) -> bool:
    return any(part.name == name for part in plan.run.facts.model.components)


def _check_absent(script: Script, absent: Mapping[str, cst.CSTNode], adding: Added) -> None:
    """Raises NotPatched where the lines need a component that the script does without."""
    for name, given in absent.items():
        if any(re.search(rf"\bpipe\.{name}\b", line) for line in adding.lines):
            cure = f"load it with the rest, or give a plan that names no {name}"
            raise script.refuse(given, f"the script does without {name}, and the plan decides about it", cure)


def _unused(script: Script, loads: list[cst.Call]) -> set[cst.CSTNode]:
    """The statements that only say what `quantization_config` of these calls was."""
    found: set[cst.CSTNode] = set()
    for given in (argument(load, QUANTIZATION) for load in loads):
        place = assigned(script, given) if isinstance(given, cst.Name) else None
        if place is not None and isinstance(given, cst.Name):
            named = [name for name in script.all(cst.Name) if name.value == given.value]
            shared = sum(argument(load, QUANTIZATION) is not None for load in loads)
            keywords = [arg.keyword for arg in script.all(cst.Arg)]
            uses = [name for name in named if not any(name is keyword for keyword in keywords)]
            found |= {place} if len(uses) <= 1 + shared else set()
    return found


def _check_dtype(here: Found, adding: Added, decided: Calls) -> None:
    """Raises NotPatched where the script loads the pipeline in another dtype than the plan is for."""
    for given in given_dtypes(here, decided):
        name, found = dtype(here.script, given), dtypes(here.script, given)
        if name and adding.dtype[:1] != "{" and adding.dtype not in {f"torch.{one}" for one in found}:
            cure = f"plan for it with --dtype {name}, or write {adding.dtype} there"
            what = f"the script loads the pipeline in {name}, and the plan is for {adding.dtype}"
            raise here.script.refuse(given, what, cure)


def _derive(script: Script, other: Pipeline, adding: Added, style: Style, edits: Edits) -> None:
    """A pipeline of the same components: it is moved nowhere, and told what is told to the whole of a pipeline."""
    decided = calls(script, other, Homes(script, other))
    edits.moves = {**edits.moves, **decided.moves}
    edits.dropped |= set(decided.dropped)
    if adding.again and other.target is not None:
        edits.after.setdefault(other.statement, []).append(style.block(script.text(other.target), adding.again))


def _import(script: Script, pipeline: Pipeline, adding: Added, edits: Edits) -> None:
    wanted = imports.missing(script, pipeline, imports_of(_needed(adding, edits)))
    if wanted:
        edits.imports.setdefault(imports.place(script, pipeline), []).extend(wanted)


def _pruned(here: Found, module: cst.Module) -> cst.Module:
    """The script without imports that nothing uses any longer; those that it never used stay."""
    script, edits = Script.read(here.script.name, module.bytes), Edits()
    for node, names in imports.unused(script).items():
        gone, every = names - here.unused, script.all(cst.ImportAlias)
        if len(gone) == len([alias for alias in every if script.parent(alias) is node]):
            edits.dropped.add(node)
        elif gone:
            edits.unnamed[node] = gone
    return edited(script.module, edits)


def _needed(adding: Added, edits: Edits) -> list[str]:
    """The imports of names that the added code really has; the script may have said its dtype itself."""
    code = "\n".join([*adding.lines, *(code for given in edits.sets.values() for code in given.values())])
    return [line for line in adding.imports if line != "import torch" or "torch." in code]


def _places(script: Script) -> list[cst.CSTNode]:
    return [cast("cst.CSTNode", line.body[0]) for line in placed_before(script)]
