"""Weights that are quantized already: the real tensors behind them, and fakes of them for a dry run.

torchao's weights are tensor subclasses around inner tensors and name the dtype they compute in; bitsandbytes' hold
packed bytes, and their scales beside them as attributes. Those of a GGUF file are bytes that hold their scales.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from diffusers.hooks import group_offloading
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from memplan.errors import Unsupported
from memplan.probes.fakes.fake import fake_of

FOUR_BIT, EIGHT_BIT = "Params4bit", "Int8Params"
"""bitsandbytes' classes of weights. Its layers read them through attributes that nn.Module does not know."""
GGUF, TINYGEMM = "GGUFParameter", "TinyGemmWeightQBitsTensor"
"""diffusers' class of weights from a GGUF file, and quanto's of 4-bit weights that are packed for PyTorch's kernel."""
_STATE = ("absmax", "code", "offset")
"""The tensors of bitsandbytes' QuantState; `state2` is one for the scales, where those are quantized too."""


# ---- sizes ----------------------------------------------------------------------------------------------------------
def inner_tensors(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that hold a weight's bytes: itself, or those it is made of, with its scales."""
    if is_traceable_wrapper_subclass(weight):
        for name in weight.__tensor_flatten__()[0]:
            yield from inner_tensors(getattr(weight, name))
        return
    yield weight
    beside = vars(weight)
    yield from _in_state(beside.get("quant_state"))
    if beside.get("SCB") is not None:
        yield beside["SCB"]


def _in_state(state: Any) -> Iterator[torch.Tensor]:
    if state is None:
        return
    yield from (t for t in (getattr(state, name, None) for name in _STATE) if isinstance(t, torch.Tensor))
    yield from _in_state(getattr(state, "state2", None))


def stored(weight: torch.Tensor) -> tuple[int, str]:
    """Elements and dtype of a weight as stored; of a quantized one the bytes of all its tensors, as "uint8"."""
    if not is_quantized(weight):
        return weight.numel(), str(weight.dtype).removeprefix("torch.")
    return sum(t.numel() * t.element_size() for t in inner_tensors(weight)), "uint8"


def parts(weight: torch.Tensor) -> tuple[int, ...]:
    """Bytes of each tensor that a quantized weight is made of; none for a plain one."""
    return tuple(t.numel() * t.element_size() for t in inner_tensors(weight)) if is_quantized(weight) else ()


def is_quantized(weight: torch.Tensor) -> bool:
    """Whether a weight, real or a fake of one, is in a quantizer's format."""
    beside = vars(weight)
    return is_traceable_wrapper_subclass(weight) or any(beside.get(name) is not None for name in ("quant_state", "SCB"))


def is_float8(weight: torch.Tensor) -> bool:
    """Whether a plain weight is in a float of one byte, in which torch stores and does not compute."""
    return not is_quantized(weight) and weight.dtype.is_floating_point and weight.dtype.itemsize == 1


# ---- fakes ----------------------------------------------------------------------------------------------------------
def fakes(name: str, module: torch.nn.Module, mode: FakeTensorMode) -> dict[int, Any]:
    """A fake of each quantized weight of component `name`, and of what its layers keep of it, by id of the original.

    Raises Unsupported for a format of which no fake can be made.
    """
    found: dict[int, Any] = {}
    for path, layer in module.named_modules():
        where = ".".join(filter(None, (name, path)))
        for key, weight in layer._parameters.items():
            if weight is None or type(weight) is torch.nn.Parameter:
                continue
            kind = type(weight).__name__
            if is_traceable_wrapper_subclass(weight):
                found[id(weight)] = _wrapped(f"{where}.{key}", weight, mode)
            elif kind == GGUF:
                found[id(weight)] = gguf_fake(weight, mode)
            elif kind == FOUR_BIT:
                found.update(_four_bit(f"{where}.{key}", layer, weight, mode))
            elif kind == EIGHT_BIT:
                found.update(_eight_bit(f"{where}.{key}", layer, weight, mode))
    return found


def _wrapped(path: str, weight: Any, mode: FakeTensorMode) -> torch.Tensor:
    """The same subclass around fakes."""

    def fake(tensor: Any) -> Any:
        if not is_traceable_wrapper_subclass(tensor):
            return fake_of(tensor, mode)
        names, context = tensor.__tensor_flatten__()
        inner = {name: fake(getattr(tensor, name)) for name in names}
        return type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())

    try:
        return torch.nn.Parameter(fake(weight), requires_grad=False)
    except Exception as error:
        kind = type(weight).__name__
        raise Unsupported(
            f"{path} is a {kind} of {type(weight).__module__}, which cannot be copied: {error}. Load it unquantized."
        ) from error


def gguf_fake(weight: Any, mode: FakeTensorMode) -> torch.Tensor:
    """A fake of a GGUFParameter, which may be on the meta device, with what diffusers' layers ask it."""
    with mode:
        fake: Any = torch.nn.Parameter(torch.empty(weight.shape, dtype=torch.uint8), requires_grad=False)
    fake.quant_type, fake.as_tensor = weight.quant_type, partial(torch.Tensor.detach, fake)
    return fake


def _four_bit(path: str, layer: Any, weight: Any, mode: FakeTensorMode) -> dict[int, Any]:
    """The packed bytes and the state, which the layer keeps too."""
    state = weight.quant_state
    if state is None or getattr(state, "packing_format_for_cpu", False):
        how = "not quantized yet: move it to a device" if state is None else "packed for the CPU's kernel: load it anew"
        raise Unsupported(f"{path} is {how} before planning.")
    plain: Any = fake_of(torch.nn.Parameter(weight.data, requires_grad=False), mode)
    plain.quant_state = _state(state, mode)
    return {id(weight): plain, id(state): plain.quant_state}


def _state(state: Any, mode: FakeTensorMode) -> Any:
    twin = copy.copy(state)
    for name in _STATE:
        if isinstance(getattr(state, name, None), torch.Tensor):
            setattr(twin, name, fake_of(getattr(state, name), mode))
    if state.state2 is not None:
        twin.state2 = _state(state.state2, mode)
    return twin


def _eight_bit(path: str, layer: Any, weight: Any, mode: FakeTensorMode) -> dict[int, Any]:
    """The bytes and scales, as the layer's state holds them from its first call on."""
    if weight.has_fp16_weights:
        raise Unsupported(f"{path} is kept in float16 and quantized in each call: load it with has_fp16_weights=False.")
    scales = weight.SCB if weight.SCB is not None else layer.state.SCB
    if scales is None:
        raise Unsupported(f"{path} is not quantized yet: move it to a device before planning.")
    plain: Any = fake_of(torch.nn.Parameter(weight.data, requires_grad=False), mode)
    plain.SCB, plain.CB = fake_of(scales, mode), None  # the layer takes over what it finds there
    state = copy.copy(layer.state)
    state.CB, state.SCB, state.idx = plain.detach(), plain.SCB, None
    return {id(weight): plain, id(layer.state): state}


def settle(module: torch.nn.Module) -> None:
    """Let the layers of a copy with fakes run as on a GPU."""
    for layer in module.modules():
        weight = layer._parameters.get("weight")
        beside = {} if weight is None else vars(weight)
        if "quant_state" in beside:
            vars(layer)["support_avx512bf16_for_cpu"] = False  # it would pack its weight for the CPU
        elif "SCB" in beside:
            layer.training = False  # a CPU takes another way in training


# ---- what the libraries refuse ---------------------------------------------------------------------------------------
def lacks(module: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """(technique, sentence) for each technique that the formats of this module's weights exclude."""
    kind = type(module).__name__
    for weight in module.parameters():
        beside = vars(weight)
        if is_quantized(weight) or "quant_type" in beside:
            yield "layerwise_casting", f"{kind} is stored quantized already"
        if "quant_type" in beside:
            yield "sequential", f"{kind}: accelerate makes GGUF weights anew without their type"
        if "quant_state" in beside:
            yield "sequential", f"{kind}: accelerate loses the scales of 4-bit weights when it moves them"
            yield "group_offload", f"{kind}: diffusers moves its 4-bit weights in groups without their scales"
        if "SCB" in beside:
            yield from (
                (technique, f"{kind}: its 8-bit layers keep references to weights that have been moved")
                for technique in ("sequential", "group_offload", "model_offload")
            )
        if is_traceable_wrapper_subclass(weight):
            yield from _lacks_of_subclass(kind, weight)


def _lacks_of_subclass(kind: str, weight: torch.Tensor) -> Iterator[tuple[str, str]]:
    """Of subclasses diffusers knows torchao's, which it moves with all that is inside; its streams pin them."""
    name = type(weight).__name__
    if not group_offloading._is_torchao_tensor(weight):
        yield "sequential", f"{kind}: accelerate makes a {name} anew without its scales"
        yield "group_offload", f"{kind}: diffusers moves a {name} in groups without its scales"
        if name == TINYGEMM:
            yield "model_offload", f"{kind}: a {name} is unpacked and packed anew for each device that it comes to"
        return
    yield "disk", f"{kind}: diffusers writes no weights of torchao into files"
    ops = getattr(type(weight), "_ATEN_OP_TABLE", {}).get(type(weight), {})
    if torch.ops.aten._pin_memory.default not in ops:
        yield "stream", f"{kind}: torchao's {name} cannot be pinned"
