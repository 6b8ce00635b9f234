"""A plan as the script a user would write: load, apply, call."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from memplan.facts import Facts
from memplan.planner import Plan


def script(plan: Plan, source: str, call: Mapping[str, Any]) -> str:
    """The complete script of `plan` for a pipeline loaded from `source`, a Hub id or a folder.

    `call` has the values of arguments that reports shorten.
    """
    facts = plan.run.facts
    lines = [line for strategy in plan.strategies for line in strategy.code(_device(plan))]
    imports = ["import torch", f"from diffusers import {facts.model.class_name}", *filter(_is_import, lines)]
    return "\n".join([
        *_merged(imports),
        "",
        f"pipe = {facts.model.class_name}.from_pretrained({json.dumps(source)}, torch_dtype={_dtypes(facts)})",
        *(line for line in lines if not _is_import(line)),
        "",
        "result = pipe(",
        *(f"    {name}={_literal(call[name]) if name in call else shown}," for name, shown in facts.trace.arguments),
        ")",
    ])  # fmt: skip


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _device(plan: Plan) -> str:
    gpu = plan.run.facts.machine.gpu
    return gpu.kind if gpu and gpu.kind in ("xpu", "mps") else "cuda"


def _is_import(line: str) -> bool:
    return line.startswith(("import ", "from "))


def _merged(imports: Iterable[str]) -> list[str]:
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


def _dtypes(facts: Facts) -> str:
    """One dtype, or a table where a component is loaded in another than the rest."""
    dtypes = {c.name: c.dtype for c in facts.model.components}
    sizes = Counter[str]()
    for component in facts.model.components:
        sizes[component.dtype] += component.size
    usual = max(sizes, key=lambda dtype: sizes[dtype])
    other = [f'"{name}": torch.{dtype}' for name, dtype in dtypes.items() if dtype != usual]
    table = ", ".join([*other, f'"default": torch.{usual}'])
    return f"{{{table}}}" if other else f"torch.{usual}"
