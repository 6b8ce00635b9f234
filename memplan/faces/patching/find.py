"""Where a script loads its pipeline, and by which names it has it afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memplan.faces.patching.reading import Script, method, root

PRETRAINED, SINGLE_FILE, FROM_PIPE = "from_pretrained", "from_single_file", "from_pipe"
TRAINING = ("backward", "zero_grad")
"""Methods that only training calls."""
LEARNING = ("bitsandbytes.optim.", "torch.autograd.grad", "torch.optim.")
"""With what the full names of functions begin that only training calls."""
HAND = (
    "load the pipeline with from_pretrained() and hand it the components that are your own, as in controlnet=controlnet"
)
OTHER_SCRIPT = "patch the script that generates pictures"
NAME_IT = "give it a name first, as in pipe = {}.from_pretrained(...)"


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A call that loads a pipeline, and what its value is assigned to; None where a function returns it at once."""

    load: cst.Call
    statement: cst.SimpleStatementLine
    target: cst.BaseExpression | None
    class_name: str

    @property
    def from_file(self) -> bool:
        """Whether it is loaded from one checkpoint, so that no component can be quantized on the way."""
        return method(self.load) == SINGLE_FILE


def check(script: Script) -> None:
    """Raises NotPatched for a script that trains."""
    for call in script.all(cst.Call):
        if method(call) in TRAINING and isinstance(call.func, cst.Attribute):
            raise script.refuse(call, f".{method(call)}() trains, and plans are for inference", OTHER_SCRIPT)
        if script.qualified(call.func).startswith(LEARNING):
            what = f"{script.qualified(call.func)}() is for training, and plans are for inference"
            raise script.refuse(call, what, OTHER_SCRIPT)


def pipelines(script: Script) -> list[Pipeline]:
    """Every pipeline that is loaded. Raises NotPatched where there is none, or one is loaded as cannot be patched."""
    found = [pipeline(script, call, name) for call, name in loads(script, PRETRAINED, SINGLE_FILE)]
    if found:
        return found
    for call in script.all(cst.Call):
        _check_class(script, call)
        name = script.qualified(call.func)
        library, _, called = name.rpartition(".")
        if library.startswith("diffusers") and is_pipeline(called) and not shared(call):
            raise script.refuse(call, f"{called}() is put together from components by hand", HAND)
    for call in script.all(cst.Call):
        name = script.qualified(call.func)
        if name.startswith(("diffusers.", "transformers.")) and name.endswith(f".{PRETRAINED}"):
            what = f"{name.split('.')[-2]} is loaded by itself, and no pipeline of diffusers is"
            raise script.refuse(call, what, HAND)
    for line in script.all(cst.ImportFrom):
        library = script.text(line.module) if line.module is not None else ""
        if isinstance(line.names, cst.ImportStar) and library == "diffusers":
            what = "which names are of diffusers cannot be told"
            raise script.refuse(line, what, "import them by name, as in from diffusers import FluxPipeline")
    last = script.module.body[-1] if script.module.body else script.module
    cure = "name a script that calls from_pretrained() or from_single_file() of a pipeline imported from diffusers"
    raise script.refuse(last, "up to here no pipeline of diffusers is loaded", cure)


def _check_class(script: Script, call: cst.Call) -> None:
    """Raises NotPatched for a class of diffusers by a name that the script gives it, as in P = FluxPipeline."""
    start = root(call.func)
    if start is None or method(call) not in (PRETRAINED, SINGLE_FILE):
        return
    for one in script.assignments(start, start.value):
        assign = script.within(one.node, cst.Assign) if hasattr(one, "node") else None
        name = script.qualified(assign.value) if isinstance(assign, cst.Assign) else ""
        if name.startswith("diffusers.") and is_pipeline(name.rpartition(".")[2]):
            own = name.rpartition(".")[2]
            raise script.refuse(call, f"{start.value} is {own} by another name", f"write {own}.{method(call)}(...)")


def is_pipeline(name: str) -> bool:
    """Whether a class of diffusers is that of a pipeline, by its name."""
    return name.endswith("Pipeline") or name.startswith("AutoPipelineFor")


def shared(call: cst.Call) -> cst.BaseExpression | None:
    """`pipe` of `XPipeline(**pipe.components)`."""
    for given in call.args:
        if given.star == "**" and isinstance(given.value, cst.Attribute) and given.value.attr.value == "components":
            return given.value.value
    return None


def loads(script: Script, *methods: str) -> Iterator[tuple[cst.Call, str]]:
    """Calls of these methods of pipelines' classes, each with the full name of the class."""
    for call in script.all(cst.Call):
        name = script.qualified(call.func)
        class_name, _, called = name.rpartition(".")
        if name.startswith("diffusers.") and called in methods and is_pipeline(class_name.rpartition(".")[2]):
            yield call, class_name


def pipeline(script: Script, call: cst.Call, name: str) -> Pipeline:
    """What a call of the class `name` makes. Raises NotPatched where its value goes where it cannot be followed."""
    class_name = name.rpartition(".")[2]
    if class_name.startswith("Modular"):
        cure = (
            "load it whole with from_pretrained() of its pipeline's class, or use memplan.auto_optimize() in the script"
        )
        raise script.refuse(call, f"{class_name} loads its components later", cure)
    outer = moved_from(script, call)
    place, statement = script.parent(outer), script.statement(call)
    cure = NAME_IT.format(class_name)
    if not isinstance(statement, cst.SimpleStatementLine):
        raise script.refuse(call, "the pipeline is loaded on the line of another statement", cure)
    if isinstance(place, cst.Return):
        return Pipeline(call, statement, None, class_name)
    if isinstance(place, cst.Assign) and len(place.targets) == 1 and root(place.targets[0].target) is not None:
        return Pipeline(call, statement, place.targets[0].target, class_name)
    if isinstance(place, cst.AnnAssign) and root(place.target) is not None:
        return Pipeline(call, statement, place.target, class_name)
    raise script.refuse(call, "the pipeline is loaded inside of an expression", cure)


MOVES = ("to", "cuda")


def moved_from(script: Script, node: cst.BaseExpression) -> cst.BaseExpression:
    """`node` with the calls of .to() and .cuda() that follow it."""
    while True:
        attribute = script.parent(node)
        call = script.parent(attribute) if isinstance(attribute, cst.Attribute) else None
        chained = isinstance(call, cst.Call) and call.func is attribute and method(call) in MOVES
        if not (chained and isinstance(attribute, cst.Attribute) and attribute.value is node):
            return node
        assert isinstance(call, cst.Call)
        node = call


def unmoved(node: cst.BaseExpression) -> cst.BaseExpression:
    """`node` without the calls of .to() and .cuda() at its end."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and method(node) in MOVES:
        node = node.func.value
    return node
