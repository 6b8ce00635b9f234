"""What the calls of a script decide about the memory of its pipeline."""

import libcst as cst

from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.find import MOVES, Pipeline
from memplan.faces.patching.homes import Homes
from memplan.faces.patching.moves import move
from memplan.faces.patching.reading import Script, argument, method
from memplan.faces.patching.values import value

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
OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
"""Methods of a pipeline that name a device, as gpu_id or as device."""
PREPARING = (
    "fuse_lora", "fuse_qkv_projections", "load_ip_adapter", "load_lora_weights", "load_textual_inversion",
    "set_adapters", "set_ip_adapter_scale", "unload_lora_weights",
)  # fmt: skip
"""Methods of a pipeline that change its components; the plan is applied after them."""


def calls(script: Script, pipeline: Pipeline, homes: Homes) -> Calls:
    """All of them. Raises NotPatched for those that cannot be taken out or understood."""
    found = Calls(anchors=[pipeline.load])
    _check_loops(script, homes)
    for call in script.all(cst.Call):
        if isinstance(call.func, cst.Attribute) and method(call) in MOVES:
            move(script, pipeline, homes, call, found)
        elif _decides(script, homes, call):
            found.drop(script, call, f"{method(call)}()")
            found.anchors.append(call)
            found.devices += _device(script, call)
        elif isinstance(call.func, cst.Attribute) and method(call) in PREPARING and homes.has(call.func.value):
            found.anchors.append(call)
            found.preparing.append(call)
    for assign in script.all(cst.Assign):
        changed = homes.part(assign.targets[0].target) and not homes.whole(assign.value)
        if changed and assign not in found.dropped and method(assign.value) != "compile":
            found.anchors.append(assign)
    return found


def _check_loops(script: Script, homes: Homes) -> None:
    """Raises NotPatched for a loop over several pipelines that decides about the memory of each."""
    for call in script.all(cst.Call):
        loop = script.within(call, cst.For)
        if (
            isinstance(loop, cst.For)
            and isinstance(call.func, cst.Attribute)
            and method(call) in (*MOVES, *OF_PIPELINE)
        ):
            named = isinstance(loop.target, cst.Name) and script.text(call.func.value) == loop.target.value
            if named and _has_it(script, homes, loop.iter):
                what = f"{script.text(call)} is for several pipelines at once"
                raise script.refuse(call, what, "write it for each of them by itself")


def _has_it(script: Script, homes: Homes, several: cst.BaseExpression) -> bool:
    """Whether the pipeline is among what a loop goes over: a list of names, or the values of a table."""
    if isinstance(several, cst.List | cst.Tuple):
        return any(homes.has(element.value) for element in several.elements)
    table = several.func.value if isinstance(several, cst.Call) and isinstance(several.func, cst.Attribute) else several
    return any(isinstance(one, cst.Subscript) and script.same(one.value, table) for one in homes.names)


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


def _device(script: Script, call: cst.Call) -> list[tuple[cst.Call, cst.BaseExpression | None]]:
    """The call with the device that it names, where it is one that offloads a pipeline and names one."""
    if method(call) not in OFFLOADS:
        return []
    number, named = argument(call, "gpu_id", 0), argument(call, "device", 1)
    if named is not None and value(script, named) is not None:
        return [(call, named)]
    if number is None or value(script, number) is None:
        return []
    shown = script.text(number)
    text = f'"cuda:{shown}"' if isinstance(number, cst.Integer) else f'f"cuda:{{{shown}}}"'
    return [(call, cst.parse_expression(text))]
