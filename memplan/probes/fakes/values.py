"""What is known of the values of fake tensors.

A small tensor that is given to a component keeps its values, unless they come from a component, and so does what is
computed from such tensors alone: code that branches on the lengths of a mask takes the branch of the real call.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

LIMIT = 2**20
"""Most elements of a tensor that keeps its values."""


@dataclass(eq=False)
class Source:
    """A tensor that was given to a component, and whether its values have been looked at since."""

    value: torch.Tensor
    read: bool = False


@dataclass(eq=False)
class Memory:
    """What the views of one storage have in common: where their values come from, and whether they are known still."""

    sources: set[Source] = field(default_factory=set)
    known: bool = True


@dataclass(frozen=True, eq=False)
class Value:
    """The real tensor beside a fake one. Views of a fake tensor have views of its value."""

    tensor: torch.Tensor
    memory: Memory


def exact(dtype: torch.dtype) -> bool:
    """Whether `dtype` is one of integers or booleans."""
    return not dtype.is_floating_point and not dtype.is_complex


def snapshot(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a real tensor, made outside the dry run."""
    with _disable_current_modes():
        return tensor.detach().cpu().clone()


def carries(tensor: torch.Tensor) -> bool:
    """Whether a real tensor is small enough to keep its values."""
    return tensor.numel() <= LIMIT and tensor.device.type != "meta"


def keep(fake: torch.Tensor, real: torch.Tensor, sources: Iterable[Source] = ()) -> None:
    """Let `fake` carry the value of `real`."""
    vars(fake)["value"] = Value(real, Memory(set(sources)))


def value_of(tensor: torch.Tensor) -> Value | None:
    """What is known of a tensor, fake or a constant of the module."""
    if isinstance(tensor, FakeTensor):
        value: Value | None = vars(tensor).get("value")
        return value if value is not None and value.memory.known else None
    return Value(snapshot(tensor), Memory()) if carries(tensor) else None


def read(tensor: torch.Tensor) -> torch.Tensor | None:
    """The value of `tensor` for code that depends on it, or None where it is not known."""
    value = value_of(tensor)
    if value is None:
        return None
    for source in value.memory.sources:
        source.read = True
    return value.tensor


def follow(func: Any, args: Any, kwargs: Any, out: Any, inputs: list[torch.Tensor]) -> None:
    """Do with the values what op `func` did with the fake tensors; `inputs` are the tensors among its arguments."""
    fakes = [tensor for tensor in inputs if isinstance(tensor, FakeTensor)]
    if fakes and not any("value" in vars(fake) for fake in fakes):
        return
    values = [value_of(tensor) for tensor in inputs]
    if None in values or torch.Tag.nondeterministic_seeded in func.tags or not _fit(out):
        _forget(written(func, args, kwargs))
        return
    compute(func, args, kwargs, out)


def compute(func: Any, args: Any, kwargs: Any, out: Any = None) -> Any:
    """Run op `func` on the values of its arguments, all of which are known; the fakes in `out` keep the results."""
    before = [value for value in map(value_of, _tensors((args, kwargs))) if value]
    reals: dict[int, Any] = {}

    def real(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in reals:
            value = value_of(leaf)
            reals[id(leaf)] = value.tensor if value else leaf
        return reals[id(leaf)]

    with _disable_current_modes(), _one_thread():
        result = func(*tree_map(real, args), **tree_map(real, kwargs))
    sources = {source for value in before for source in value.memory.sources}
    for tensor in written(func, args, kwargs):
        if value := value_of(tensor):
            value.memory.sources |= sources
    memories = {value.tensor.untyped_storage()._cdata: value.memory for value in before}
    for fake, made in zip(_tensors(out), _tensors(result), strict=False):
        if isinstance(fake, FakeTensor) and "value" not in vars(fake):
            memory = memories.setdefault(made.untyped_storage()._cdata, Memory(sources))
            vars(fake)["value"] = Value(made, memory)
    return result


@contextmanager
def _one_thread() -> Generator[None]:
    """One thread for tensors so small that others would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def written(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The tensors that op `func` writes to."""
    if not func._schema.is_mutable:
        return []
    names = [a.name for a in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    writes = (a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write)
    return _tensors([given.get(name) for name in writes])


def _fit(out: Any) -> bool:
    """Whether the results of an op are small enough, and fake."""
    return all(isinstance(tensor, FakeTensor) and tensor.numel() <= LIMIT for tensor in _tensors(out))


def _forget(tensors: list[torch.Tensor]) -> None:
    for tensor in tensors:
        if value := value_of(tensor):
            value.memory.known = False


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
