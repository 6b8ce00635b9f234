"""Notes at which step, and in which context of its cache, a pipeline runs each denoiser."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from memplan.facts import Turn
from memplan.probes.trace.ledger import Ledger

CONTEXT = "cache_context"
"""The method by which pipelines tell a denoiser's caches for what it is called (diffusers/models/cache_utils.py)."""


class Turns:
    """The forwards of `pipe`'s denoisers that take step caches."""

    def __init__(self, pipe: Any, ledger: Ledger) -> None:
        """None has run."""
        self.pipe, self.ledger = pipe, ledger
        self.taken: list[Turn] = []
        self._contexts: dict[str, str | None] = {}
        self._distilled: set[str] = set()

    @contextmanager
    def watching(self, components: Mapping[str, nn.Module]) -> Generator[None]:
        """Listen to what the pipeline says of contexts, for the length of the context."""
        with ExitStack() as stack:
            for name, module in components.items():
                if hasattr(type(module), CONTEXT):
                    self._contexts[name] = None
                    if getattr(getattr(module, "config", None), "guidance_embeds", False):
                        self._distilled.add(name)
                    vars(module)[CONTEXT] = self._listening(name, getattr(module, CONTEXT))
                    stack.callback(vars(module).pop, CONTEXT)
            yield

    def _listening(self, component: str, original: Any) -> Any:
        @contextmanager
        def listening(name: str, **kwargs: Any) -> Generator[None]:
            self._contexts[component] = name
            try:
                with original(name, **kwargs):
                    yield
            finally:
                self._contexts[component] = None

        return listening

    def given(self, component: str, method: str) -> None:
        """`method` of `component` is called."""
        if component in self._contexts and method == "forward":
            self.taken.append(Turn(component, self._contexts[component], self._timestep(), self._guided(component)))

    def _guided(self, component: str) -> bool:
        """Whether a second prompt guides it: what the pipeline says, else by its scale, which may go in as a number."""
        scale = 0.0 if component in self._distilled else getattr(self.pipe, "guidance_scale", None)
        return bool(getattr(self.pipe, "do_classifier_free_guidance", isinstance(scale, int | float) and scale > 1))

    def _timestep(self) -> float | None:
        """What the pipeline says; None for nothing, or for what a dry run does not know."""
        said = getattr(self.pipe, "current_timestep", None)
        if not isinstance(said, torch.Tensor):
            return None if said is None else float(said)
        if said.numel() != 1 or self.ledger.doubts(said):
            return None
        with _disable_current_modes():
            return float(said)
