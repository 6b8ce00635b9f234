"""By which names a script has its pipeline and the pipeline's components, and which pipelines it makes of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import libcst as cst

from memplan.faces.options import DTYPES, OF_WEIGHTS, ON_THE_HUB, PLANNED, REVISION
from memplan.faces.patching.aliases import check_only, components
from memplan.faces.patching.find import (
    FROM_PIPE,
    PRETRAINED,
    Pipeline,
    is_pipeline,
    loads,
    pipeline,
    shared,
    unmoved,
)
from memplan.faces.patching.reading import Script, argument, method, root
from memplan.faces.patching.values import UNKNOWN, assigned, value

OPTIONS = (
    *ON_THE_HUB, *OF_WEIGHTS, *DTYPES, *PLANNED, REVISION, "add_watermarker", "config", "custom_pipeline",
    "custom_revision", "feature_extractor", "image_processor", "original_config", "pretrained_model_name_or_path",
    "processor", "requires_safety_checker", "scheduler", "tokenizer", "tokenizer_2", "tokenizer_3", "trust_remote_code",
)  # fmt: skip
"""Arguments of a pipeline's loading that are no component with weights."""


@dataclass(frozen=True, eq=False)
class Own:
    """The calls that load a component, () where that cannot be told, and what each is assigned to."""

    loads: tuple[cst.Call, ...]
    targets: tuple[cst.BaseExpression, ...] = ()


def own_parts(script: Script, pipeline: Pipeline) -> dict[str, Own]:
    """The components that a pipeline is handed, by name."""
    found = {}
    for given in pipeline.load.args:
        name = given.keyword.value if given.keyword else ""
        if name and name not in OPTIONS and value(script, given.value) is UNKNOWN:
            found[name] = _loaded(script, given.value)
    return found


def left_out(script: Script, pipeline: Pipeline, homes: "Homes") -> dict[str, cst.CSTNode]:
    """The components that a pipeline does without, as text_encoder_3=None or pipe.safety_checker = None says."""
    named = [(given.keyword.value, given) for given in pipeline.load.args if given.keyword is not None]
    found: dict[str, cst.CSTNode] = {n: g for n, g in named if n not in OPTIONS and value(script, g.value) is None}
    for assign in script.all(cst.Assign):
        part = homes.part(assign.targets[0].target)
        if part and isinstance(assign.targets[0].target, cst.Attribute) and value(script, assign.value) is None:
            found[part] = assign
    return found


def _loaded(script: Script, given: cst.BaseExpression) -> Own:
    """Where a component, or each of a list of them, comes from."""
    bare, place = unmoved(given), assigned(script, given) if isinstance(given, cst.Name) else None
    if isinstance(bare, cst.List):
        parts = [_loaded(script, element.value) for element in bare.elements]
        whole = all(part.loads for part in parts)
        loads = tuple(load for part in parts for load in part.loads) if whole else ()
        return Own(loads, tuple(target for part in parts for target in part.targets))
    if isinstance(bare, cst.Call) and method(bare) == PRETRAINED and script.qualified(bare.func):
        return Own((bare,))
    if place is not None and place.value is not None and isinstance(given, cst.Name):
        found = _loaded(script, place.value)
        return Own(found.loads, (*found.targets, given))
    return Own(())


class Homes:
    """The expressions by which a script has one pipeline: its name, others for it, and parameters that it goes to."""

    def __init__(self, script: Script, pipeline: Pipeline) -> None:
        """Follows assignments, returns and calls of the script's own functions until nothing new is found."""
        self._script, self._load = script, pipeline.load
        self.own = own_parts(script, pipeline)
        self._parts: list[tuple[cst.BaseExpression, str]] = []
        self._known = [pipeline.target] if pipeline.target is not None else []
        before = -1
        while before != len(self._known):
            before = len(self._known)
            for target in [*self._assigned(), *self._handed()]:
                if not self.has(target):
                    self._known.append(target)
        self._parts = list(components(script, self))
        for target, name in self._parts:
            check_only(script, self, target, name)

    @property
    def names(self) -> tuple[cst.BaseExpression, ...]:
        """Each of them once, the first that it has."""
        return tuple(self._known)

    def has(self, node: cst.CSTNode) -> bool:
        """Whether `node` is the pipeline."""
        return node is self._load or any(self._script.same(node, known) for known in self._known)

    def part(self, node: cst.CSTNode) -> str:
        """The component that `node` is, as in pipe.vae, or before it is handed over, by name; "" for anything else."""
        if isinstance(node, cst.Attribute) and self.has(node.value):
            return node.attr.value
        for name, own in self.own.items():
            if node in own.loads or any(self._script.same(node, target) for target in own.targets):
                return name
        return next((name for target, name in self._parts if self._script.same(node, target)), "")

    def whole(self, value: cst.BaseExpression) -> str:
        """The attribute of the pipeline that `value` is, moved or not; "" for anything else."""
        bare = unmoved(value)
        return bare.attr.value if isinstance(bare, cst.Attribute) and self.has(bare.value) else ""

    def loaded(self, node: cst.CSTNode | None) -> str:
        """The component that the call `node` loads, by name; "" for anything else."""
        return next((name for name, own in self.own.items() if node in own.loads), "")

    def _assigned(self) -> Iterator[cst.BaseExpression]:
        for node in self._script.all(cst.Assign):
            if self._is(node.value):
                yield from (target.target for target in node.targets if root(target.target) is not None)

    def _is(self, value: cst.BaseExpression) -> bool:
        bare = unmoved(value)
        if self.has(bare):
            return True
        return isinstance(bare, cst.Call) and any(self._returns(f) for f in self._functions(bare))

    def _returns(self, function: cst.FunctionDef) -> bool:
        returned = (node for node in self._script.all(cst.Return) if self._script.home(node) is function)
        return any(node.value is not None and self.has(unmoved(node.value)) for node in returned)

    def _functions(self, call: cst.Call) -> Iterable[cst.FunctionDef]:
        """The script's own functions that a call may mean: by name, or by that of a method of self."""
        own = isinstance(call.func, cst.Name) or (
            root(call.func) is not None and self._script.text(call.func)[:5] == "self."
        )
        named = [f for f in self._script.all(cst.FunctionDef) if own and f.name.value == method(call)]
        made = [cls for cls in self._script.all(cst.ClassDef) if own and cls.name.value == method(call)]
        inits = (f for f in self._script.all(cst.FunctionDef) if f.name.value == "__init__")
        return [*named, *(f for f in inits if self._script.within(f, cst.ClassDef) in made)]

    def _handed(self) -> Iterator[cst.BaseExpression]:
        """Parameters of the script's own functions that the pipeline is given for."""
        for call in self._script.all(cst.Call):
            if not any(self.has(given.value) for given in call.args):
                continue
            for function in self._functions(call):
                params = [param.name for param in (*function.params.params, *function.params.kwonly_params)]
                bound = isinstance(call.func, cst.Attribute) or function.name.value == "__init__"
                params = params[1:] if bound else params
                for at, param in enumerate(params):
                    given = argument(call, param.value, at)
                    if given is not None and self.has(given):
                        yield param


def derived(script: Script, homes: "Homes") -> Iterator[tuple[cst.Call, Pipeline]]:
    """Pipelines that are made from the components of another one."""
    for call, name in loads(script, FROM_PIPE):
        given = call.args[0].value if call.args else None
        if given is not None and homes.has(given):
            yield call, pipeline(script, call, name)
    for call in script.all(cst.Call):
        name = script.qualified(call.func)
        if name.startswith("diffusers.") and is_pipeline(name.rpartition(".")[2]):
            source = shared(call)
            if source is not None and homes.has(source):
                yield call, pipeline(script, call, name)
