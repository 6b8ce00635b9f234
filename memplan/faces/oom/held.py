"""What was in memory when an allocation failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from memplan.faces.oom.frames import is_module
from memplan.oom import Allocation
from memplan.oom.allocation import HOST, PINNED

TYPES = {"rocm": "cuda", HOST: "cpu", PINNED: "cpu"}
"""What torch calls a device whose kind is called otherwise here."""


@dataclass(frozen=True)
class Held:
    """Bytes in the memory that ran out: of weights by component, and of what else tensors held.

    `others` is what tensors held beside weights, activations above all; None where nothing tells what they held.
    """

    weights: tuple[tuple[str, int], ...] = ()
    others: int | None = None

    @property
    def of_weights(self) -> int:
        """Bytes of all weights there."""
        return sum(nbytes for _, nbytes in self.weights)


def held(failed: Allocation, pipes: tuple[Any, ...]) -> Held:
    """What `pipes` and torch say of the memory in which `failed` was asked for."""
    if not failed.kind:
        return Held()
    kind, seen = TYPES.get(failed.kind, failed.kind), set[int]()
    weights: dict[str, int] = {}
    for pipe in pipes:
        for name, part in getattr(pipe, "components", {}).items():
            nbytes = sum(_bytes(part, kind, failed.index, seen)) if is_module(part) else 0
            if nbytes:
                weights[name] = weights.get(name, 0) + nbytes
    allocated = failed.allocated if failed.on_device else None
    others = None if allocated is None else max(allocated - sum(weights.values()), 0)
    return Held(tuple(sorted(weights.items(), key=lambda item: -item[1])), others)


def _bytes(part: Any, kind: str, index: int | None, seen: set[int]) -> Iterator[int]:
    """The storages of a component's weights on the device, each once."""
    for weight in (*part.parameters(), *part.buffers()):
        for tensor in _plain(weight):
            if there(tensor, kind, index) and tensor.untyped_storage()._cdata not in seen:
                seen.add(tensor.untyped_storage()._cdata)
                yield tensor.untyped_storage().nbytes()


def _plain(tensor: Any) -> Iterator[Any]:
    """The tensors that hold the bytes: of a quantizer's subclass those inside it."""
    inner = getattr(tensor, "__tensor_flatten__", None)
    if inner is None:
        yield tensor
        return
    for name in inner()[0]:
        yield from _plain(getattr(tensor, name))


def there(tensor: Any, kind: str, index: int | None) -> bool:
    """Whether a tensor is on the device of that type and number, None for any."""
    device = tensor.device
    return device.type == kind and (index is None or device.index in (None, index))
