"""Whether the gradients of what a call returns reach what its denoisers returned."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Nodes = frozenset[Any]
"""The ops of autograd that made what a call returned."""


def tensors(value: Any) -> Iterator[Any]:
    """The tensors in `value`, which may be one, or outputs, tuples and lists of them."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from tensors(entry)


def nodes(value: Any) -> Nodes:
    """What made the tensors in `value` that keep gradients; none where none does."""
    return frozenset(tensor.grad_fn for tensor in tensors(value) if tensor.grad_fn is not None)


def reached(value: Any, calls: Sequence[Nodes]) -> int:
    """How many of `calls` the gradients of `value` flow back to."""
    missing = dict(enumerate(calls))
    for node in _before(tensor.grad_fn for tensor in tensors(value) if tensor.grad_fn is not None):
        missing = {number: call for number, call in missing.items() if node not in call}
        if not missing:
            break
    return len(calls) - len(missing)


def _before(ends: Iterable[Any]) -> Iterator[Any]:
    """The ops that lead to `ends`, each once."""
    stack = [*ends]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)
