"""Notices which components a pipeline calls twice for each step, with the same latents: the two passes of guidance."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from memplan.facts import PAIRED, ZEROED
from memplan.probes.trace.doors import Visit

ONCE = "the pipeline does not call it twice with the same latents, one call after the other"
UNGUIDED = "this call makes no second pass"
UNLIKE = "its two passes differ in shapes or in masks"


class Passes:
    """The calls of each component, two by two; each is handed on."""

    def __init__(self, on_visit: Callable[[Visit], None]) -> None:
        """No component was called."""
        self.on_visit = on_visit
        self.words: dict[str, str] = {}
        self.odd: set[str] = set()
        self._given: weakref.ref[torch.Tensor] | None = None
        self._open: dict[str, tuple[weakref.ref[torch.Tensor] | None, Visit]] = {}

    def watching(self, on_given: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        """`on_given`, and what is denoised is kept in mind: the first tensor of the call."""

        def given(component: str, inputs: Any) -> None:
            first = next((leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)), None)
            self._given = None if first is None else weakref.ref(first)
            if first is not None and first.dim() and len(first) % 2:
                self.odd.add(component)
            on_given(component, inputs)

        return given

    def visit(self, visit: Visit) -> None:
        """A component was called."""
        self.on_visit(visit)
        name, here = visit.component, self._given() if self._given else None
        latents, other = self._open.pop(name, (None, visit))
        if latents is None:
            self._open[name] = (self._given, visit)
        elif here is None or latents() is not here:
            self.words[name] = ONCE
        elif other is not visit:
            self.words.setdefault(name, UNLIKE)

    def failures(self, asked: Mapping[str, Any]) -> dict[tuple[str, tuple[str, ...]], str]:
        """Why components cannot be called two at once, where somebody asked for it."""
        words = self.words | dict.fromkeys(self._open, ONCE)  # called an odd number of times
        alone = [name for name, sentence in words.items() if sentence == ONCE and name in self.odd]
        found: dict[tuple[str, tuple[str, ...]], str] = {}
        if PAIRED in asked:
            found |= {(name, (PAIRED,)): sentence for name, sentence in words.items()}
        if ZEROED in asked:
            found |= {(name, (ZEROED,)): UNGUIDED for name in alone}
        return found
