"""What a plan adds to a script: the lines of report/code.py, for the script's own names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import Assignment, GlobalScope, MetadataWrapper, ScopeProvider

from memplan.faces.api import placed
from memplan.faces.report.code import applying, device_of, formats, is_import, merged, whole
from memplan.faces.report.loading import MAPPING, dtypes_as_code, mapping
from memplan.planner import Plan
from memplan.strategy import Strategy

PIPE = "pipe"
"""What the lines call the pipeline."""


@dataclass(frozen=True)
class Added:
    """Code. `quantized` is that of the pipeline's quantization_config, "" for none; `parts` are those of components.

    `lines` apply the plan to `pipe`, once it is loaded so; `again` those of them that another pipeline of the same
    components needs too; `beside` are components that the plan knows nothing of, and that it leaves on the device, and
    `absent` those of it that the script does without.
    """

    imports: tuple[str, ...]
    quantized: str
    parts: Mapping[str, str]
    dtype: str
    lines: tuple[str, ...]
    again: tuple[str, ...]
    beside: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def added(
    plan: Plan, device: str | None, own: Mapping[str, bool], absent: frozenset[str] = frozenset(), *, at_once: bool
) -> Added:
    """What `plan` adds for `device`, or where that is None for the device of its machine.

    `own` are the components that the script loads by itself, each with whether a config can be given there; the rest
    can be quantized as it is loaded where the pipeline comes `at_once` from its files. `absent` are components that it
    does without; techniques for them alone are left out.
    """
    where, model = device or device_of(plan), plan.run.facts.model
    configs = {name: config for name, config in formats(plan).items() if name not in absent}
    parts = {name: configs[name] for name, reached in own.items() if reached and name in configs}
    at_load = {name: config for name, config in configs.items() if at_once and name not in own}
    strategies = [s for s in placed(plan) if not {seat.component for seat in s.seats} <= absent]
    found = applying(plan, strategies, {*parts, *at_load}, where, absent)
    again = [line for strategy in strategies if _is_whole(strategy, where) for line in strategy.code(where)]
    known = {part.name for part in model.components}
    beside = tuple(name for name in own if name not in known and not again)
    found += [f'{PIPE}.{name}.to("{where}")' for name in beside if whole(where) not in found]
    named = [line for config in (*parts.values(), *at_load.values()) for line in config.imports]
    dtype = dtypes_as_code([part for part in model.components if not part.file] or model.components)
    imports = [*named, *filter(is_import, found), *([MAPPING] if at_load else []), "import torch"]
    return Added(
        tuple(merged(imports)),
        mapping(at_load) if at_load else "",
        {name: config.value for name, config in parts.items()},
        dtype,
        tuple(line for line in found if not is_import(line)),
        tuple(line for line in again if not is_import(line)),
        beside,
        tuple(sorted(absent & known)),
    )


def _is_whole(strategy: Strategy, device: str) -> bool:
    """Whether a strategy is a method of the pipeline itself, or goes through its components."""
    return any(f"{PIPE}.enable_" in line or f"{PIPE}.components" in line for line in strategy.code(device))


# ---- names ----------------------------------------------------------------------------------------------------------
def statements(
    lines: Iterable[str], pipe: str, device: tuple[str, str] | None, taken: frozenset[str]
) -> list[cst.BaseStatement]:
    """`lines` with `pipe` in place of "pipe", and names that are not `taken` in place of their own.

    `device` is the text of a device in the lines, and the expression that the script has for it.
    """
    wrapper = MetadataWrapper(cst.parse_module("\n".join(lines) + "\n"))
    scopes = {scope for scope in wrapper.resolve(ScopeProvider).values() if isinstance(scope, GlobalScope)}
    own = {a.name for scope in scopes for a in scope.assignments if isinstance(a, Assignment)}
    names = {name: cst.parse_expression(f"memplan_{name}") for name in own & taken}
    module = wrapper.module.visit(_Named({**names, PIPE: cst.parse_expression(pipe)}, device))
    return list(module.body)


class _Named(cst.CSTTransformer):
    """Puts expressions in place of names, but not of attributes and keywords, and of the text of a device."""

    def __init__(self, names: Mapping[str, cst.BaseExpression], device: tuple[str, str] | None) -> None:
        super().__init__()
        self._names, self._device = names, device

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        found = self._names.get(original_node.value)
        return found.deep_clone() if found is not None else updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.BaseExpression:
        if self._device and original_node.value == f'"{self._device[0]}"':
            return cst.parse_expression(self._device[1])
        return updated_node


def imports_of(lines: Iterable[str]) -> list[cst.Import | cst.ImportFrom]:
    """Lines of imports as nodes."""
    found = []
    for line in lines:
        statement = cst.ensure_type(cst.parse_statement(line), cst.SimpleStatementLine)
        small = statement.body[0]
        if isinstance(small, cst.Import | cst.ImportFrom):
            found.append(small)
    return found
