"""The weights of one streamed group in one stretch of pinned memory, of which, or of a copy, each is a view."""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.run import ALIGNMENT, PAGE

from .weights import Weight, plain


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a stretch of bytes, and what it looks like."""

    offset: int
    nbytes: int
    dtype: Any
    size: Any
    stride: tuple[int, ...]

    def view(self, memory: Any) -> Any:
        """The tensor in `memory`."""
        flat = memory[self.offset : self.offset + self.nbytes].view(self.dtype)
        return flat.as_strided(self.size, self.stride)


class Pinned:
    """Host memory that starts at a page, pinned where it is for copies to `device`; let go with this object.

    PyTorch's own pinned memory is rounded up to powers of two, and kept by the process.
    """

    def __init__(self, nbytes: int, device: Any) -> None:
        """Raises RuntimeError where the system refuses to pin so much."""
        import torch

        whole = -(-nbytes // PAGE) * PAGE
        raw = torch.empty(whole + PAGE, dtype=torch.uint8, device="cpu")
        start = -raw.data_ptr() % PAGE
        self.memory = raw[start : start + whole]
        if torch.device(device).type == "cuda":
            from torch.cuda._pin_memory_utils import pin_memory

            pin_memory(self.memory.data_ptr(), whole)
            weakref.finalize(self, _unpin, self.memory).atexit = False


def _unpin(memory: Any) -> None:
    from torch.cuda._pin_memory_utils import unpin_memory

    unpin_memory(memory.data_ptr())


class Pack:
    """The weights of one group: packed in host memory, and shown to their modules there or in a slot."""

    def __init__(self, weights: Sequence[Weight], device: Any) -> None:
        """Copies the weights into pinned memory, of which they are views from then on."""
        self.weights = weights
        found = [plain(weight.own) for weight in weights]
        self.places, self.nbytes = _laid_out(found)
        self.pinned = Pinned(self.nbytes, device)
        self.source = self.pinned.memory[: self.nbytes]
        self.views = self._views(self.source)
        for weight, views, parts in zip(weights, self.views, found, strict=True):
            for view, part in zip(views, parts, strict=True):
                view.copy_(part)
            weight.settle(views)
        self.now = self.views
        self.back()

    def _views(self, memory: Any) -> list[list[Any]]:
        return [[place.view(memory) for place in places] for places in self.places]

    def on(self, memory: Any) -> None:
        """The modules find their weights in `memory`, which has what is packed."""
        self._show(self._views(memory))

    def back(self) -> None:
        """The modules find their weights in host memory."""
        self._show(self.views)

    def _show(self, views: list[list[Any]]) -> None:
        self.now = views
        self.again(range(len(views)))

    def again(self, numbers: Iterable[int]) -> None:
        """The modules find these weights where they were shown last; casting replaces them in between."""
        for number in numbers:
            self.weights[number].show(self.now[number])

    def refresh(self) -> None:
        """Packs anew what somebody replaced meanwhile, as fusing a LoRA may. Raises BadInput where it can't be."""
        for weight, views in zip(self.weights, self.views, strict=True):
            changed = weight.changed(views)
            if changed is not None:
                for view, part in zip(views, changed, strict=True):
                    view.copy_(part)
                weight.show(views)

    def unpack(self) -> None:
        """Each weight has memory of its own again, on the device that it came from."""
        self.refresh()
        for weight, views in zip(self.weights, self.views, strict=True):
            parts = [view.to(home, copy=True) for view, home in zip(views, weight.homes, strict=True)]
            weight.settle(parts)
            weight.back()


def _laid_out(found: Sequence[Sequence[Any]]) -> tuple[list[list[Place]], int]:
    """A place for each tensor, one after the other and aligned; and the bytes of all."""
    end, table = 0, []
    for parts in found:
        places = []
        for part in parts:
            places.append(Place(end, part.nbytes, part.dtype, part.size(), _dense(part)))
            end += -(-part.nbytes // ALIGNMENT) * ALIGNMENT
        table.append(places)
    return table, end


def _dense(tensor: Any) -> tuple[int, ...]:
    """The strides of a tensor, or those of a contiguous one where it leaves gaps or repeats itself."""
    import torch

    strides: tuple[int, ...] = torch.empty_like(tensor, device="meta").stride()  # which keeps those without gaps
    return strides
