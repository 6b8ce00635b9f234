"""Notices which components may compute in host memory while the rest of the pipeline is on the device.

In a dry run all is on the CPU. So the pipeline's own code is followed as if it were not: what it sends to its device is
taken to be there, and what a component returns to be in host memory until it is sent.
"""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

QUESTION = "get_module_execution_device"
"""What pipelines call to ask where a component computes (diffusers/utils/torch_utils.py, since 0.42)."""
HOST = torch.device("cpu", 0)
"""The answer. To PyTorch it is where everything is; it differs from the pipeline's device, which has no index."""
DEVICE = "device"
Place = str | frozenset[str] | None
"""DEVICE, host memory with the components that a tensor there came from, or None for what was never sent anywhere."""


class Places(TorchFunctionMode):
    """Follows where the tensors of a pipeline's own code would be. `asked` are the components asked about.

    `joined` are pairs of which one is given, or computed with, what the other returned; `stuck` those that are given
    tensors on the device, or whose results meet such. What happens `inside` a component is not followed.
    """

    def __init__(self, inside: Callable[[], bool]) -> None:
        """Nothing has been asked."""
        super().__init__()
        self.inside = inside
        self.asked: set[str] = set()
        self.joined: set[tuple[str, str]] = set()
        self.stuck: set[str] = set()

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Components that may compute in host memory: each group as a whole, or not at all."""
        groups = {name: {name} for pair in (*self.joined, *((n, n) for n in self.asked)) for name in pair}
        for one, other in self.joined:
            merged = groups[one] | groups[other]
            groups.update(dict.fromkeys(merged, merged))
        whole = {tuple(sorted(group)) for group in groups.values()}
        return tuple(sorted(group for group in whole if self.asked.issuperset(group) and not self.stuck & set(group)))

    # -- components ----------------------------------------------------------------------------------------------------
    def given(self, component: str, inputs: Any) -> None:
        """`component` is called with `inputs`."""
        for place in map(_place, _sized(inputs)):
            if place == DEVICE:
                self.stuck.add(component)
            elif isinstance(place, frozenset):
                self.joined |= {(component, origin) for origin in place - {component}}

    def returned(self, component: str, result: Any) -> None:
        """`component` has returned `result`."""
        for tensor in _tensors(result):
            vars(tensor)["place"] = frozenset({component})

    # -- the pipeline's own code ---------------------------------------------------------------------------------------
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func`; its results are where its arguments are, or where it sends them."""
        kwargs = kwargs or {}
        result = func(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
        if self.inside() or not isinstance(result, torch.Tensor | tuple | list):
            return result
        sent = _destination(func, args, kwargs)
        if sent is None:
            return self._together(result, [_place(t) for t in _sized((args, kwargs))])
        return tree_map(lambda tensor: _sent(tensor, sent), result)

    def _together(self, result: Any, places: list[Place]) -> Any:
        """`result` of an op on tensors at `places`, which CUDA wants to be one."""
        origins = [place for place in places if isinstance(place, frozenset)]
        names = frozenset().union(*origins)
        if DEVICE in places:
            self.stuck |= names
        self.joined |= {(one, other) for one in names for other in names if one < other}
        if any(place is not None for place in places):
            for tensor in _tensors(result):
                vars(tensor)["place"] = DEVICE if DEVICE in places else names
        return result


def _place(tensor: torch.Tensor) -> Place:
    place: Place = vars(tensor).get("place")
    return place


def _plain(value: Any) -> Any:
    """HOST without its index, which fake tensors would take for another device."""
    return torch.device("cpu") if isinstance(value, torch.device) and value == HOST else value


def _destination(func: Any, args: Any, kwargs: Any) -> Place:
    """Where `func` sends or makes its result; None where it says nothing of a device."""
    named = (kwargs.get("device"), *(args[1:2] if func is torch.Tensor.to else ()))
    device = next((torch.device(name) for name in named if isinstance(name, torch.device | str)), None)
    return None if device is None else frozenset() if device == HOST else DEVICE


def _sent(value: Any, place: Place) -> Any:
    """`value` at `place`: another tensor where it is a component's, of which the original stays where it was."""
    if isinstance(value, torch.Tensor):
        value = value.detach() if _place(value) else value
        vars(value)["place"] = place
    return value


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """All tensors among `values`, also those that an output object holds."""
    for leaf in tree_leaves(values):
        found = (leaf,) if isinstance(leaf, torch.Tensor) else getattr(leaf, "__dict__", {}).values()
        yield from (value for value in found if isinstance(value, torch.Tensor))


def _sized(values: Any) -> Iterator[torch.Tensor]:
    """Those that have dimensions: CUDA takes others from host memory too."""
    return (tensor for tensor in _tensors(values) if tensor.dim())


@contextmanager
def asking(pipe: Any, components: Mapping[str, nn.Module], inside: Callable[[], bool]) -> Generator[Places]:
    """What the code of `pipe` does with the tensors of its `components` in the length of the context.

    Pipelines import the function by name, so it is replaced in the modules of their classes.
    """
    names, places = {id(part): name for name, part in components.items()}, Places(inside)
    scopes = {cls.__module__: vars(sys.modules[cls.__module__]) for cls in type(pipe).__mro__}
    found = [(scope, scope[QUESTION]) for scope in scopes.values() if QUESTION in scope]

    def answer(module: nn.Module) -> torch.device:
        places.asked |= {names[id(module)]} if id(module) in names else set()
        return HOST

    try:
        for scope, _ in found:
            scope[QUESTION] = answer
        with places:
            yield places
    finally:
        for scope, original in found:
            scope[QUESTION] = original
