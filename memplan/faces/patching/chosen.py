"""Which pipeline of a script is meant, and what the script says of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import libcst as cst

from memplan.faces.options import DTYPES
from memplan.faces.patching.blocks import Lifted, lifted
from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.find import Pipeline, check, pipelines
from memplan.faces.patching.homes import Homes, derived
from memplan.faces.patching.imports import unused
from memplan.faces.patching.reading import Script


@dataclass(frozen=True, eq=False)
class Found:
    """A script, the pipeline of it that is meant, by which names it has that, and what was lifted out of it.

    `unused` are names that it imports for nothing.
    """

    script: Script
    pipeline: Pipeline
    homes: Homes
    others: tuple[Pipeline, ...]
    lifted: Lifted
    unused: frozenset[str] = frozenset()

    @property
    def home(self) -> str:
        """What the script calls the pipeline; a name for one that it returns at once."""
        target = self.pipeline.target
        taken = {name.value for name in self.script.all(cst.Name)}
        free = next(name for name in ("pipe", "pipeline", "memplan_pipe") if target is not None or name not in taken)
        return self.script.text(target) if target is not None else free


def found(name: str, source: bytes, pipe: str = "") -> Found:
    """The pipeline that the script `name` loads; of several the one called `pipe`, or loaded in the line so numbered.

    Raises NotPatched where there is none, there are several, or it is loaded in a way that cannot be patched.
    """
    script = Script.read(name, source)
    check(script)
    every = pipelines(script)
    at, idle = _chosen(script, every, pipe), frozenset[str]().union(*unused(script).values())
    homes = Homes(script, every[at])
    own = {script.text(known) for known in homes.names}
    own |= {script.text(other.target) for _, other in derived(script, homes) if other.target is not None}
    without = lifted(source, frozenset(own), tuple(_lines_of_others(script, every, at)))
    if without.shifts:
        script = Script.read(name, without.source, without.shifts)
        every = pipelines(script)
        homes = Homes(script, every[at])
    others = tuple(other for other in every if other is not every[at])
    return Found(script, every[at], homes, others, without, idle)


def given_dtypes(here: Found, decided: Calls) -> list[cst.BaseExpression]:
    """What the script says of the pipeline's dtype: as it is loaded, or after that."""
    named = [a.value for a in here.pipeline.load.args if a.keyword is not None and a.keyword.value in DTYPES]
    return decided.dtypes[-1:] or named


def _lines_of_others(script: Script, every: list[Pipeline], at: int) -> Iterator[range]:
    """The lines of functions and classes in which the name of the pipeline that is meant has another one."""
    own = every[at].target
    for other in every[:at] + every[at + 1 :]:
        target = other.target
        if own is not None and target is not None and script.text(own) == script.text(target):
            kinds = (cst.ClassDef,) if script.text(own).startswith("self.") else (cst.FunctionDef,)
            around = script.within(other.statement, *kinds)
            yield from [script.lines(around)] if around is not None else []


def _are_same(script: Script, one: Pipeline, other: Pipeline) -> bool:
    """Whether two pipelines get the same name in the same place."""
    return one.target is not None and other.target is not None and script.same(one.target, other.target)


def _chosen(script: Script, every: list[Pipeline], pipe: str) -> int:
    names = [script.text(one.target) if one.target is not None else "" for one in every]
    lines = [str(script.line(one.load)) for one in every]
    fitting = [at for at in range(len(every)) if not pipe or pipe in (names[at], lines[at])]
    listed = ", ".join(f"{name or 'a returned one'} in line {line}" for name, line in zip(names, lines, strict=True))
    if not fitting:
        raise script.refuse(every[0].load, f"no pipeline here is called {pipe}", f"the script loads {listed}")
    if any(_are_same(script, one, other) for one, other in combinations(every, 2)):
        cure = "load it in one place, or patch each of the scripts that come of it"
        raise script.refuse(every[1].load, f"the same name is given to several pipelines ({listed})", cure)
    if len(fitting) > 1:
        which = names[0] if names[0] and names.count(names[0]) == 1 else lines[0]
        cure = f"say which one is meant, as in --pipe {which}; a plan is for one pipeline at a time"
        raise script.refuse(every[1].load, f"the script loads several pipelines ({listed})", cure)
    return fitting[0]
