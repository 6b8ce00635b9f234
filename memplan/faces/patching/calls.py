"""What the calls of a script decide about the memory of its pipeline."""

from dataclasses import dataclass, field

import libcst as cst

from memplan.faces.patching.aliases import check_left
from memplan.faces.patching.blocks import PLACE
from memplan.faces.patching.find import FROM_PIPE, MOVES, Pipeline, unmoved
from memplan.faces.patching.homes import Homes
from memplan.faces.patching.reading import Script, method
from memplan.faces.patching.values import DTYPE, kind, value

OF_PIPELINE = (
    "disable_attention_slicing", "disable_vae_slicing", "disable_vae_tiling", "enable_attention_slicing",
    "enable_group_offload", "enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_vae_slicing",
    "enable_vae_tiling", "remove_all_hooks", "reset_device_map",
)  # fmt: skip
OF_COMPONENT = (
    "compile", "compile_repeated_blocks", "disable_cache", "disable_slicing", "disable_tiling", "enable_cache",
    "enable_group_offload", "enable_layerwise_casting", "enable_slicing", "enable_tiling", "set_attention_slice",
)  # fmt: skip
FUNCTIONS = {
    "accelerate": ("cpu_offload", "cpu_offload_with_hook", "dispatch_model"),
    "diffusers": ("apply_first_block_cache", "apply_group_offloading", "apply_layerwise_casting"),
    "optimum": ("freeze", "quantize"),
    "torch": ("compile",),
    "torchao": ("quantize_",),
}
"""Those that are given a component, by the package that has them. What all three decide is the plan's to decide."""
PREPARING = (
    "fuse_lora", "fuse_qkv_projections", "load_ip_adapter", "load_lora_weights", "load_textual_inversion",
    "set_adapters", "set_ip_adapter_scale", "unload_lora_weights",
)  # fmt: skip
"""Methods of a pipeline that change its components; the plan is applied after them."""
HOST = "cpu"
OWN_LINE = "put it on a line of its own, by itself"


@dataclass(eq=False)
class Calls:
    """What is to be changed of a script, by node.

    `moves` are calls of .to() and .cuda() with the arguments they keep; `dropped` are small statements that go.
    `anchors` are what the plan is applied after, `devices` what the script itself moves to, each with the call.
    """

    moves: dict[cst.Call, tuple[cst.Arg, ...]] = field(default_factory=dict)
    dropped: dict[cst.CSTNode, str] = field(default_factory=dict)
    anchors: list[cst.CSTNode] = field(default_factory=list)
    devices: list[tuple[cst.Call, cst.BaseExpression | None]] = field(default_factory=list)
    dtypes: list[cst.BaseExpression] = field(default_factory=list)


def calls(script: Script, pipeline: Pipeline, homes: Homes) -> Calls:
    """All of them. Raises NotPatched for those that cannot be taken out or understood."""
    found = Calls(anchors=[pipeline.load])
    for call in script.all(cst.Call):
        if isinstance(call.func, cst.Attribute) and method(call) in MOVES:
            _move(script, pipeline, homes, call, found)
        elif _decides(script, homes, call):
            _drop(script, call, f"{method(call)}()", found)
            found.anchors.append(call)
        elif isinstance(call.func, cst.Attribute) and method(call) in PREPARING and homes.has(call.func.value):
            found.anchors.append(call)
    for assign in script.all(cst.Assign):
        changed = homes.part(assign.targets[0].target) and not homes.whole(assign.value)
        if changed and assign not in found.dropped and method(assign.value) != "compile":
            found.anchors.append(assign)
    return found


def _decides(script: Script, homes: Homes, call: cst.Call) -> bool:
    """Whether a call decides about memory, of the pipeline or of one of its components."""
    library, _, function = script.qualified(call.func).rpartition(".")
    if function in FUNCTIONS.get(library.partition(".")[0], ()):
        given = call.args[0].value if call.args else None
        return given is not None and bool(homes.part(_forward(given)))
    if not isinstance(call.func, cst.Attribute):
        return False
    of, name = call.func.value, method(call)
    deeper = isinstance(of, cst.Attribute) and bool(homes.part(of.value))
    own = homes.has(of) and name in OF_PIPELINE
    return own or (bool(homes.part(of)) and name in OF_COMPONENT) or (deeper and name == "compile")


def _forward(node: cst.BaseExpression) -> cst.BaseExpression:
    """`pipe.vae` of `pipe.vae.decode`, which is compiled by itself."""
    is_method = isinstance(node, cst.Attribute) and node.attr.value in ("decode", "forward", "encode")
    return node.value if is_method and isinstance(node, cst.Attribute) else node


# ---- moves ----------------------------------------------------------------------------------------------------------
def _move(script: Script, pipeline: Pipeline, homes: Homes, call: cst.Call, found: Calls) -> None:
    """A call of .to() or .cuda() on the pipeline, or on a component of it."""
    assert isinstance(call.func, cst.Attribute)
    of = unmoved(call.func.value)
    whole = homes.has(of) or _is_load(of, pipeline)
    if not (whole or homes.part(of)):
        return
    to, kept, dtypes = _arguments(script, call)
    found.dtypes += dtypes if whole else []
    if to is None and method(call) == "to":
        found.anchors.append(call)
        return
    if whole and value(script, to) == HOST:
        _check_back(script, homes, call)
        return
    found.anchors.append(call)
    if whole:
        found.devices.append((call, to))
    if not kept and call.func.value is of and _does_nothing_else(script, script.parent(call), of):
        _drop(script, call, "", found)
    else:
        found.moves[call] = kept


def _is_load(node: cst.CSTNode, pipeline: Pipeline) -> bool:
    return node is pipeline.load


def _arguments(
    script: Script, call: cst.Call
) -> tuple[cst.BaseExpression | None, tuple[cst.Arg, ...], list[cst.BaseExpression]]:
    """The device that a move names, the arguments that are none, and those of them that are dtypes."""
    to, kept, dtypes = None, list[cst.Arg](), list[cst.BaseExpression]()
    for given in call.args:
        name = given.keyword.value if given.keyword else ""
        what = name if name in ("device", "dtype") else "" if name else kind(script, given.value)
        if what == DTYPE:
            dtypes.append(given.value)
            kept.append(given)
        elif what or method(call) == "cuda":
            to = given.value
        elif name in ("memory_format", "silence_dtype_warnings", "non_blocking"):
            kept += [given] if name == "memory_format" else []
        else:
            shown = script.text(given.value)
            cure = f'write device={shown} or dtype={shown}, or the device itself, as in .to("cuda")'
            raise script.refuse(call, f"whether {shown} is a device or a dtype cannot be told", cure)
    return to, tuple(kept), dtypes


def _check_back(script: Script, homes: Homes, call: cst.Call) -> None:
    """Raises NotPatched for a pipeline that goes back to the CPU, unless another branch moves it to the device."""
    others: list[cst.CSTNode] = [one for one in script.all(cst.Call) if one is not call and _moves(homes, one)]
    others += placed_before(script)
    for branch in script.ancestors(call):
        if isinstance(branch, cst.If) and any(branch in script.ancestors(one) for one in others):
            return
    what = f"{script.text(call)} takes the pipeline off the device, which a plan does by itself"
    raise script.refuse(call, what, "leave that line out, then patch again")


def _moves(homes: Homes, call: cst.Call) -> bool:
    return isinstance(call.func, cst.Attribute) and method(call) in MOVES and homes.has(unmoved(call.func.value))


def _does_nothing_else(script: Script, statement: cst.CSTNode, of: cst.BaseExpression) -> bool:
    """Whether a statement only moves: `pipe.to(...)`, or `pipe = pipe.to(...)`."""
    if isinstance(statement, cst.Expr):
        return not isinstance(of, cst.Call)
    one = isinstance(statement, cst.Assign) and len(statement.targets) == 1
    return one and isinstance(statement, cst.Assign) and script.text(statement.targets[0].target) == script.text(of)


# ---- what goes ------------------------------------------------------------------------------------------------------
def _drop(script: Script, call: cst.Call, what: str, found: Calls) -> None:
    """The small statement of a call is to go. Raises NotPatched where its value is used."""
    small = script.small(call)
    line = script.parent(small) if small is not None else None
    alone = isinstance(small, cst.Expr) and unmoved(small.value) in (call, unmoved(call))
    assigned = isinstance(small, cst.Assign) and unmoved(small.value) in (call, unmoved(call))
    if small is None or not (alone or assigned) or not isinstance(line, cst.SimpleStatementLine):
        raise script.refuse(call, f"{script.text(call)} is part of another statement", OWN_LINE)
    if isinstance(small, cst.Assign):
        check_left(script, small, call)
    found.dropped[small] = what


def placed_before(script: Script) -> list[cst.SimpleStatementLine]:
    """The places that stand for lines which were there before, in order."""
    lines = script.all(cst.SimpleStatementLine)
    return [line for line in lines if [script.text(small) for small in line.body] == [PLACE]]


def used(script: Script, homes: Homes, within: cst.CSTNode) -> bool:
    """Whether the pipeline is called inside of a statement, or handed to another function."""
    return any(
        (homes.has(call.func) or any(homes.has(given.value) for given in call.args))
        and within in script.ancestors(call)
        and method(call) != FROM_PIPE
        for call in script.all(cst.Call)
    )
