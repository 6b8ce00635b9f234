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
from memplan.faces.patching.blocks import Lifted, begin, end, lifted
from memplan.faces.patching.calls import Calls, calls, literal, placed_before
from memplan.faces.patching.edit import Block, Edits, edited
from memplan.faces.patching.find import Homes, Pipeline, check, derived, left_out, pipelines
from memplan.faces.patching.notes import notes
from memplan.faces.patching.places import Place, place
from memplan.faces.patching.reading import Script, argument
from memplan.faces.patching.values import TORCH_DEVICE, assigned, dtype, kind
from memplan.faces.report.code import device_of
from memplan.faces.report.loading import QUANTIZATION
from memplan.planner import Plan


@dataclass(frozen=True)
class Patched:
    """The script with the plan in it, and what there is to know about that, in sentences."""

    source: bytes
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """A script, the pipeline of it that is meant, by which names it has that, and what was lifted out of it."""

    script: Script
    pipeline: Pipeline
    homes: Homes
    others: tuple[Pipeline, ...]
    lifted: Lifted

    @property
    def home(self) -> str:
        """What the script calls the pipeline; a name for one that it returns at once."""
        target = self.pipeline.target
        taken = {name.value for name in self.script.all(cst.Name)}
        free = next(name for name in ("pipe", "pipeline", "memplan_pipe") if target is not None or name not in taken)
        return self.script.text(target) if target is not None else free


def found(name: str, source: bytes, pipe: str = "") -> Found:
    """The pipeline that the script `name` loads; of several the one called `pipe`, or loaded in the line of that number.

    Raises NotPatched where there is none, there are several, or it is loaded in a way that cannot be patched.
    """
    script = Script.read(name, source)
    check(script)
    every = pipelines(script)
    at = _chosen(script, every, pipe)
    homes = Homes(script, every[at])
    own = {script.text(known) for known in homes.names}
    own |= {script.text(other.target) for _, other in derived(script, homes) if other.target is not None}
    without = lifted(source, frozenset(own))
    if without.shifts:
        script = Script.read(name, without.source, without.shifts)
        every = pipelines(script)
        homes = Homes(script, every[at])
    others = tuple(other for other in every if other is not every[at])
    return Found(script, every[at], homes, others, without)


def patched(here: Found, plan: Plan) -> Patched:
    """The script with `plan` in place of what it has decided about memory by itself. Raises NotPatched."""
    script, pipeline, homes = here.script, here.pipeline, here.homes
    decided = calls(script, pipeline, homes)
    where = place(script, pipeline, homes, decided)
    device, shown = _device(here, where, plan)
    absent = left_out(script, pipeline)
    own = {name: len(part.loads) == 1 for name, part in homes.own.items() if part.loads or _has(plan, name)}
    adding = added(plan, device, own, frozenset(absent), at_once=not pipeline.from_file)
    _check_absent(script, absent, adding)
    edits = Edits(moves=decided.moves, dropped={*decided.dropped, *_places(script)})
    _load(here, adding, decided, edits)
    taken = frozenset(name.value for name in script.all(cst.Name))
    replaced = (device or device_of(plan), shown) if shown and shown[0] not in "'\"" else None
    label = str(plan)
    lines = statements(adding.lines, here.home, replaced, taken)
    blocks = [Block(begin(here.home, shown, label), lines, end(here.home))] if lines else []
    edits.after.setdefault(where.after, []).extend(blocks)
    for _, other in derived(script, homes):
        _derive(script, other, adding, label, replaced, taken, edits)
    _import(script, pipeline, adding, edits)
    module = edited(script.module, edits)
    return Patched(module.bytes, notes(script, pipeline, homes, here.others, decided, adding, plan))


# ---- which one ------------------------------------------------------------------------------------------------------
def _chosen(script: Script, every: list[Pipeline], pipe: str) -> int:
    names = [script.text(one.target) if one.target is not None else "" for one in every]
    lines = [str(script.line(one.load)) for one in every]
    fitting = [at for at in range(len(every)) if not pipe or pipe in (names[at], lines[at])]
    listed = ", ".join(f"{name or 'a returned one'} in line {line}" for name, line in zip(names, lines, strict=True))
    if not fitting:
        raise script.refuse(every[0].load, f"no pipeline here is called {pipe}", f"the script loads {listed}")
    if len(every) > 1 and len(set(names)) < len(names):
        cure = "load it in one place, or patch each of the scripts that come of it"
        raise script.refuse(every[1].load, f"the same name is given to several pipelines ({listed})", cure)
    if len(fitting) > 1:
        cure = f"say which one is meant, as in --pipe {names[0] or lines[0]}; a plan is for one pipeline at a time"
        raise script.refuse(every[1].load, f"the script loads several pipelines ({listed})", cure)
    return fitting[0]


def _device(here: Found, where: Place, plan: Plan) -> tuple[str | None, str]:
    """The device of the added lines, None for that of the plan's machine, and how the script writes it, "" for that."""
    if here.lifted.shifts:
        shown = here.lifted.devices.get(here.home, "")
        return (
            (cst.ensure_type(cst.parse_expression(shown), cst.SimpleString).raw_value, shown)
            if shown[:1] in ("'", '"')
            else (None, shown)
        )
    if where.move is None:
        return None, ""
    given = next(given for call, given in _devices(here, where) if call is where.move)
    text = literal(here.script, given)
    if text is not None:
        return (None, "") if text == device_of(plan) else (text, f'"{text}"')
    assert given is not None
    shown = " ".join(here.script.text(given).split())
    return None, f"str({shown})" if kind(here.script, given) == TORCH_DEVICE else shown


def _devices(here: Found, where: Place) -> list[tuple[cst.Call, cst.BaseExpression | None]]:
    return calls(here.script, here.pipeline, here.homes).devices


# ---- edits ----------------------------------------------------------------------------------------------------------
def _load(here: Found, adding: Added, decided: Calls, edits: Edits) -> None:
    """Arguments of what loads the pipeline and its components."""
    pipeline = here.pipeline
    sets: dict[str, str] = {QUANTIZATION: adding.quantized} if adding.quantized else {}
    _check_dtype(here, adding, decided)
    single = adding.dtype[:1] != "{"
    plain = not (has(pipeline.load, *DTYPES) or decided.dtypes) and adding.dtype != "torch.float32"
    sets |= {"torch_dtype": adding.dtype} if plain and (single or not pipeline.from_file) else {}
    edits.dropped |= _unused(
        here.script, [pipeline.load, *(load for own in here.homes.own.values() for load in own.loads)]
    )
    edits.sets[pipeline.load] = sets
    edits.unset[pipeline.load] = tuple(name for name in PLANNED if name not in sets)
    for name, own in here.homes.own.items():
        code = adding.parts.get(name)
        for load in own.loads:
            edits.sets[load] = {QUANTIZATION: code} if code else {}
            edits.unset[load] = tuple(option for option in PLANNED if not (code and option == QUANTIZATION))
    if pipeline.target is None:
        edits.returns[pipeline.statement] = here.home


def _has(plan: Plan, name: str) -> bool:
    return any(part.name == name for part in plan.run.facts.model.components)


def _check_absent(script: Script, absent: Mapping[str, cst.Arg], adding: Added) -> None:
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
        name = dtype(here.script, given)
        if name and adding.dtype[:1] != "{" and adding.dtype != f"torch.{name}":
            cure = f"plan for it with --dtype {name}, or write {adding.dtype} there"
            what = f"the script loads the pipeline in {name}, and the plan is for {adding.dtype}"
            raise here.script.refuse(given, what, cure)


def given_dtypes(here: Found, decided: Calls) -> list[cst.BaseExpression]:
    """What the script says of the pipeline's dtype: as it is loaded, or after that."""
    named = [a.value for a in here.pipeline.load.args if a.keyword is not None and a.keyword.value in DTYPES]
    return decided.dtypes[-1:] or named


def _derive(
    script: Script,
    other: Pipeline,
    adding: Added,
    label: str,
    device: tuple[str, str] | None,
    taken: frozenset[str],
    edits: Edits,
) -> None:
    """A pipeline of the same components: it is moved nowhere, and told what is told to the whole of a pipeline."""
    decided = calls(script, other, Homes(script, other))
    edits.moves = {**edits.moves, **decided.moves}
    edits.dropped |= set(decided.dropped)
    if adding.again and other.target is not None:
        name = script.text(other.target)
        lines = statements(adding.again, name, device, taken)
        edits.after.setdefault(other.statement, []).append(Block(begin(name, "", label), lines, end(name)))


def _import(script: Script, pipeline: Pipeline, adding: Added, edits: Edits) -> None:
    wanted = imports.missing(script, pipeline, imports_of(_needed(adding)))
    if wanted:
        edits.imports.setdefault(imports.place(script, pipeline), []).extend(wanted)


def _needed(adding: Added) -> list[str]:
    """The imports of names that the added code really has; the script may have said its dtype itself."""
    code = "\n".join([*adding.lines, adding.quantized, *adding.parts.values(), adding.dtype])
    return [line for line in adding.imports if line != "import torch" or "torch." in code]


def _places(script: Script) -> list[cst.CSTNode]:
    return [cast("cst.CSTNode", line.body[0]) for line in placed_before(script)]
