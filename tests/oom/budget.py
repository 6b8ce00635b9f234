"""Two ways to run out of memory on the CPU: a module that fails so many times, and bytes that may be held at most."""

import weakref
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memplan.facts import MIB
from tests.oom.limit import text


@dataclass
class Breaker:
    """Fails at entry number `entry` of a module and at those after it, `times` in all. It counts entries of modules.

    `kept` says for each failure but the first how much of what former ones were given is still in memory.
    """

    module: nn.Module
    entry: int = 0
    times: int = 0
    entries: Counter[int] = field(default_factory=Counter)
    errors: list[Exception] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    given: list[weakref.ref[torch.Tensor]] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Generator["Breaker"]:
        """As long as it lasts."""
        handle = register_module_forward_pre_hook(self._enters)
        try:
            yield self
        finally:
            handle.remove()

    def _enters(self, module: nn.Module, args: Any) -> None:
        self.entries[id(module)] += 1
        if module is self.module and self.entries[id(module)] > self.entry and len(self.errors) < self.times:
            self.kept += [sum(given() is not None for given in self.given)] if self.given else []
            self.given += [weakref.ref(args[0])] if args else []
            self.errors.append(torch.OutOfMemoryError(text(4 * MIB, 8 * MIB, 3 * MIB)))
            raise self.errors[-1]


class Budget(TorchDispatchMode):
    """Lets no more than `most` bytes be held by tensors that are made in it and by weights that stay on the device.

    It looks at them `during` a phase. Weights that are offloaded do not count.
    """

    def __init__(self, pipe: Any, during: Callable[[], bool], most: float = float("inf")) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        parts = {part: sum(map(_nbytes, part.parameters())) for part in pipe.components.values() if _module(part)}
        self.parts, self.during, self.most = parts, during, most
        self.live = self.peak = self.failures = 0
        self.seen: set[int] = {w.untyped_storage()._cdata for p in parts for w in (*p.parameters(), *p.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.seen:
                self._made(leaf.untyped_storage())
        return result

    def _made(self, storage: torch.UntypedStorage) -> None:
        key, asked = storage._cdata, storage.nbytes()
        held = self.live + sum(nbytes for part, nbytes in self.parts.items() if not _offloaded(part))
        if self.during() and held + asked > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError(text(asked, held, max(int(self.most) - held, 0)))
        self.live += asked
        self.peak = max(self.peak, held + asked) if self.during() else self.peak
        self.seen.add(key)
        weakref.finalize(storage, self._gone, key, asked)

    def _gone(self, key: int, nbytes: int) -> None:
        self.seen.discard(key)
        self.live -= nbytes


def _module(part: Any) -> bool:
    return isinstance(part, nn.Module)


def _nbytes(weight: torch.Tensor) -> int:
    return weight.nbytes


def _offloaded(part: nn.Module) -> bool:
    grouped = getattr(part, "_diffusers_hook", None)
    return hasattr(part, "_hf_hook") or (grouped is not None and "group_offloading" in grouped.hooks)
