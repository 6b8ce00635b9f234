"""Some groups of a component are streamed through slots, and the rest of it is on the device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from memplan.errors import BadInput
from memplan.run import spread
from memplan.strategy import STREAMED, Undo

from ..live.way_back import attributes, homes
from .copiers import Copier, copier
from .packing import Pack
from .slots import Slots
from .weights import Tables, Weight, plain, standing

CASTING = "layerwise_casting"
"""How diffusers names the hook that casts a layer."""


# ---- which groups ---------------------------------------------------------------------------------------------------
def groups(part: Any, level: str, modules: Sequence[str]) -> list[Any]:
    """The modules of which each is a group, in order: as diffusers forms them, without what lies outside lists."""
    if level == "block_level":
        return list(_blocks(part, modules or getattr(part, "_group_offload_block_modules", None) or ()))
    return [module for path, module in part.named_modules() if path and _direct(module)]


def _blocks(module: Any, names: Sequence[str]) -> Iterator[Any]:
    import torch

    for name, child in module.named_children():
        if name in names:
            yield from _blocks(child, names)
        elif isinstance(child, torch.nn.ModuleList | torch.nn.Sequential):
            yield from child


def _direct(module: Any) -> list[Any]:
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]


def chosen(part: Any, level: str, modules: Sequence[str], streamed: int) -> list[tuple[Any, list[Weight]]]:
    """The modules of the groups that are streamed, each with its weights; none that share some with other modules."""
    every, everywhere = groups(part, level, modules), standing(part)
    own = [standing(module, deep=level == "block_level") for module in every]
    alone = [all(len(everywhere[k][1]) == len(tables) for k, (_, tables) in found.items()) for found in own]
    sizes = [sum(map(_moving, found.values())) if one else 0 for found, one in zip(own, alone, strict=True)]
    return [(every[n], [Weight(*found) for found in own[n].values()]) for n in spread(sizes, streamed)]


def _moving(found: tuple[Any, Tables]) -> int:
    return sum(part.nbytes for part in plain(found[0]))


# ---- the deed -------------------------------------------------------------------------------------------------------
Lending = Callable[[Callable[[], set[int]]], Undo]
"""Lends a component to the device but for tensors of which it is told the ids; the value ends that."""


def place(
    name: str,
    part: Any,
    picked: Sequence[tuple[Any, list[Weight]]],
    device: str,
    by: Copier | None,
    *,
    lending: Lending | None = None,
) -> Undo:
    """Brings `part` to the device, but for the groups `picked`, which come `by` a copier when they are called.

    With `lending` what is not picked comes and goes by that. Raises BadInput where a weight is of a kind that cannot
    be packed.
    """
    known, home = standing(part), next(part.parameters()).device
    with ExitStack() as undos:
        undos.callback(_bring, part, home, set(known))  # what has been added since
        undos.callback(homes(part))
        if lending is None:
            _bring(part, device, {id(weight.own) for _, weights in picked for weight in weights})
        packs: list[Pack] = []
        for _, weights in picked:
            undos.callback(_scales(weights, device))
            packs.append(Pack(weights, device))
            undos.callback(packs[-1].unpack)
        slots = Slots(name, packs, by or copier(device), device)
        if lending is not None:
            undos.callback(attributes(part, "forward", "_hf_hook", "_old_forward"))
            undos.callback(lending(slots.shown))
        undos.callback(_hooked(part, [module for module, _ in picked], slots, lent=lending is not None))
        return undos.pop_all().close


def _bring(part: Any, device: Any, others: set[int]) -> None:
    """All but `others`, which are ids, comes to the device; also what has been added since, such as a LoRA."""
    import torch

    there = torch.empty(0, device=device).device
    for module in part.modules():
        for table in (module._parameters, module._buffers):
            for tensor in table.values():
                if tensor is None or tensor.device == there or id(tensor) in others:
                    continue
                if type(tensor) in (torch.nn.Parameter, torch.Tensor):
                    tensor.data = tensor.data.to(there)
                else:
                    module.to(there)  # which knows what goes with a quantized weight


def _scales(weights: Sequence[Weight], device: str) -> Undo:
    """The scales of bitsandbytes' 4-bit weights are no tensors of a module: they stay on the device."""
    states = [weight.own.quant_state for weight in weights if getattr(weight.own, "quant_state", None) is not None]
    before = [state.absmax.device for state in states]
    for state in states:
        state.to(device)

    def undo() -> None:
        for state, home in zip(states, before, strict=True):
            state.to(home)

    return undo


def _hooked(part: Any, modules: Sequence[Any], slots: Slots, *, lent: bool) -> Undo:
    def begin() -> None:
        slots.begin()
        if not lent:
            _bring(part, slots.device, slots.shown())

    hooks = [*_around(part, begin, slots.end, first=False)]  # what is on demand leaves before the slots are there
    for number, module in enumerate(modules):
        hooks += _around(module, partial(slots.enter, number), partial(slots.leave, number))
        hooks += _behind_casts(module, slots.packs[number])
    back = attributes(part, "to", STREAMED)
    vars(part).update({STREAMED: slots, "to": _stays(slots.name, part, slots.device)})

    def undo() -> None:
        back()
        slots.end()
        slots.copier.finish()
        for hook in hooks:
            hook.remove()

    return undo


def _around(module: Any, before: Callable[[], None], after: Callable[[], None], *, first: bool = True) -> list[Any]:
    return [
        module.register_forward_pre_hook(_quiet(before), prepend=first),
        module.register_forward_hook(_quiet(after), always_call=True),
    ]


def _quiet(act: Callable[[], None]) -> Any:
    """`act` as a hook that torch.compile leaves as it is."""
    import torch

    return torch.compiler.disable(lambda *_: act())


def _behind_casts(module: Any, pack: Pack) -> Iterator[Any]:
    """A layer that was cast has made new weights: it finds those in the slot again, so that the others can go."""
    for layer in module.modules():
        registry = vars(layer).get("_diffusers_hook")
        if registry is not None and registry.get_hook(CASTING):
            own = {id(tensor) for tensor in _direct(layer)}
            numbers = [number for number, weight in enumerate(pack.weights) if id(weight.own) in own]
            yield layer.register_forward_hook(_quiet(partial(pack.again, numbers)))


def _stays(name: str, part: Any, device: str) -> Callable[..., Any]:
    """`part.to()`, which has nothing to do for the device where it is, and refuses what would move what is packed."""
    import torch

    library: Any = torch._C

    def to(*args: Any, **kwargs: Any) -> Any:
        place, dtype, *_ = library._nn._parse_to(*args, **kwargs)
        here = torch.device(device)
        elsewhere = place is not None and (place.type != here.type)
        if elsewhere or dtype not in (None, getattr(part, "dtype", dtype)):
            raise BadInput(f"{name} is streamed in part to {device}: undo that plan first, then move or cast it")
        return part

    return to
