"""A plan as the script a user would write: load, apply, call."""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from memplan.faces.report import training
from memplan.faces.report.loading import loading
from memplan.faces.sampling.asked import written
from memplan.facts import DENOISING, Purpose
from memplan.planner import Plan
from memplan.planner.label import ON_GPU
from memplan.probes.fakes.sizes import is_size
from memplan.run import Resident, Run
from memplan.strategy import Config, Decision, Strategy

_PICTURES = re.compile(r"(?:a|(\d+))(?: made-up)? (?:pictures of )?(\d+) x (\d+)(?: picture)?")
"""One picture, or several, as the dry run describes them: number (of several), width, height."""


def script(plan: Plan, source: str, call: Mapping[str, Any]) -> str:
    """The complete script of `plan` for a pipeline whose configs are at `source`, a Hub id or a folder.

    `call` has the values of arguments that reports shorten.
    """
    facts = plan.run.facts
    load = loading(facts.model, source, formats(plan))
    placed = [strategy for strategy in plan.strategies if strategy.purpose is not Purpose.GRADIENTS]
    lines = applying(plan, placed, load.configured, device_of(plan))
    lines = [*training.before(plan, device_of(plan)), *lines] if facts.training else lines
    loop = training.after(plan, device_of(plan)) if facts.training else []
    values = [(name, *_value(name, shown, call)) for name, shown in facts.trace.arguments]
    needed = [needs for _, needs, _ in values if needs]
    own = [
        "import torch",
        *(["import memplan"] if facts.differentiable else []),
        f"from diffusers import {facts.model.class_name}",
        *load.imports,
    ]
    imports = [*own, *filter(is_import, [*lines, *loop]), *([] if loop else needed)]
    return "\n".join([
        *merged(imports),
        "",
        *load.lines,
        *(line for line in lines if not is_import(line)),
        "",
        *([line for line in loop if not is_import(line)] or _in_context(plan, _call(values))),
    ])  # fmt: skip


def _call(values: Iterable[tuple[str, str, str]]) -> list[str]:
    """The pipeline's call with its arguments: of each the name, the import that it needs, and its value."""
    return ["result = pipe(", *(f"    {name}={value}" for name, _, value in values), ")"]


def _in_context(plan: Plan, made: list[str]) -> list[str]:
    """The lines of the call; of one that keeps gradients inside of the context that does."""
    keeps = plan.run.facts.differentiable
    if keeps is None:
        return made
    found = (getattr(s, "checkpoint", None) for s in plan.strategies if s.purpose is Purpose.GRADIENTS)
    others = [part.name for part in plan.run.facts.model.components if part.name not in _denoisers(plan)]
    still = [f"pipe.{name}.requires_grad_(False)" for name in others]
    behind = "...  # the loss of result, and its backward()"
    inside = (f"    {line}" for line in (*made, behind))
    return [f'pipe.to("{device_of(plan)}")', *still, written(keeps, next(found, None)), *inside]


def _denoisers(plan: Plan) -> frozenset[str]:
    trace = plan.run.facts.trace
    return frozenset(graph.call.component for graph in trace.graphs if graph.call.phase == DENOISING)


def in_memory(plan: Plan, strategies: Iterable[Strategy]) -> str:
    """The lines that apply `strategies`, those of `plan` for every component, to a `pipe` that is on no device yet."""
    found = lines(strategies, {part.name for part in plan.run.facts.model.components}, device_of(plan))
    imports = merged(["import torch", *filter(is_import, found)])
    return "\n".join([*imports, "", *(line for line in found if not is_import(line))])


def formats(plan: Plan) -> dict[str, Config]:
    """The components that `plan` has loaded in the format that it gives them, each with the config for it."""
    return {name: config for strategy in plan.strategies for name, config in _configs(strategy, plan.run)}


def applying(
    plan: Plan,
    strategies: Iterable[Strategy],
    configured: Set[str],
    device: str,
    absent: Set[str] = frozenset(),
) -> list[str]:
    """The lines of `strategies` for a `pipe` of which the components that are `configured` came in their formats.

    Those that are `absent` it does without.
    """
    left = []
    for strategy in strategies:
        own = dict(_configs(strategy, plan.run))
        left += [] if own and configured >= own.keys() else [strategy]
    return lines(left, {part.name for part in plan.run.facts.model.components} - absent, device)


def lines(strategies: Iterable[Strategy], components: Set[str], device: str) -> list[str]:
    """The lines of `strategies` for a `pipe` of these components, which goes to the device whole if all of them do."""
    listed = list(strategies)
    on = [s for s in listed if s.name == ON_GPU]
    if not components or components != {seat.component for s in on for seat in s.seats}:
        return [line for strategy in listed for line in strategy.code(device)]
    rest = [line for strategy in listed if strategy not in on for line in strategy.code(device)]
    return [*rest, whole(device)]


def whole(device: str) -> str:
    """The line that moves all of a `pipe`."""
    return f'pipe.to("{device}")'


# ---- arguments ------------------------------------------------------------------------------------------------------
def _value(name: str, shown: str, call: Mapping[str, Any]) -> tuple[str, str]:
    """The import that an argument needs, if any, and its value as code with the comma behind it.

    A picture is opened where a path was given, else made up; what no code can be written for is left to be filled in.
    """
    given, picture = call.get(name), _PICTURES.fullmatch(shown)
    if picture and isinstance(given, str) and not is_size(given):
        return "from diffusers.utils import load_image", f"load_image({json.dumps(str(Path(given).expanduser()))}),"
    if picture:
        number, width, height = picture.groups()
        made = f'Image.new("{"L" if "mask" in name else "RGB"}", ({width}, {height}), "white")'
        return "from PIL import Image", f"[{made}] * {number}," if number else f"{made},"
    text = _literal(given) if name in call else "" if "…" in shown[-2:] else shown
    return "", f"{text}," if _is_literal(text) else f"...,  # to be filled in: {shown}"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


# ---- the rest -------------------------------------------------------------------------------------------------------
def _configs(strategy: Strategy, run: Run) -> Iterator[tuple[str, Config]]:
    """The components that can be loaded in the format that `strategy` gives them, each with the config for it.

    What the loader would leave on the device, and the plan has elsewhere, is converted after it is loaded instead: the
    device need not hold all of that at once.
    """
    for name in sorted(seat.component for seat in strategy.seats if seat.decision == Decision.FORMAT):
        config = strategy.config(run.facts.model.component(name))
        if config is not None and (not config.on_device or isinstance(run.placement(name), Resident)):
            yield name, config


def device_of(plan: Plan) -> str:
    """The device of its machine, as torch names it."""
    gpu = plan.run.facts.machine.gpu
    return gpu.kind if gpu and gpu.kind in ("xpu", "mps") else "cuda"


def is_import(line: str) -> bool:
    """Whether a line of code imports."""
    return line.startswith(("import ", "from "))


def merged(imports: Iterable[str]) -> list[str]:
    """Each import once, the names of one module on one line, in alphabetical order."""
    modules: dict[str, set[str]] = {}
    plain: set[str] = set()
    for line in imports:
        if line.startswith("import "):
            plain.add(line)
        else:
            module, _, names = line.removeprefix("from ").partition(" import ")
            modules.setdefault(module, set()).update(name.strip() for name in names.split(","))
    return [*sorted(plain), *(f"from {m} import {', '.join(sorted(names))}" for m, names in sorted(modules.items()))]
