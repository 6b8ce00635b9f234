"""Weights are stored in 8 bits and cast up layer by layer."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan.facts import Component, Facts
from memplan.run import Run, Stored
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.way_back import originals, registries, switched
from .rules.refusals import no_dtype, willing

STORAGES = ("float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True)
class LayerwiseCasting(Strategy):
    """Weights are stored in float8, and each layer is cast to the compute dtype while it runs.

    It stores 50 to 68 % of the bfloat16 size: what a class keeps (norms and their modulation, embeddings, position
    tables) decides. No calibration, no special hardware; offloading moves fewer bytes too. "float8_e4m3fn" keeps more
    precision, "float8_e5m2" more range.

    It costs a cast of every layer on every forward, the largest layer in full precision for a moment, and some
    precision: 3 bits of mantissa. `skip` holds patterns of module names to spare, for models outside diffusers.

    Traps: load LoRAs first; offload after, not before; it can't be undone, unless `keep_original` holds the weights in
    host memory.
    """

    component: str
    storage: str = STORAGES[0]
    skip: tuple[str, ...] = ()
    keep_original: bool = False

    name: ClassVar[str] = "layerwise_casting"
    known_as: ClassVar[tuple[str, ...]] = ("fp8", "float8", "cast", "casting")
    irreversible: ClassVar[str | None] = (
        "float8 storage loses bits: keep them with keep_original=true, or reload the component with from_pretrained()"
    )

    @property
    def final(self) -> str | None:
        """Nothing is final where the original is kept."""
        return None if self.keep_original else self.irreversible

    @property
    def seats(self) -> frozenset[Seat]:
        """In which format this component is stored."""
        return frozenset({Seat(Decision.FORMAT, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each component that can be cast: e5m2 is as large as e4m3fn, and less precise."""
        yield from willing((cls(c.name, skip=c.cast_skip) for c in facts.model.components), facts)

    @classmethod
    def measured(cls, component: Component) -> Mapping[str, Any]:
        """What the library spares, as it was measured."""
        return {"skip": component.cast_skip}

    def refuses(self, run: Run) -> str | None:
        """Refuses models on which it breaks or changes nothing, and settings other than those measured."""
        component = run.facts.model.component(self.component)
        if self.storage not in STORAGES:
            return f"storage is {' or '.join(STORAGES)}, not {self.storage}"
        lack = component.lack("layerwise_casting") or component.lack("own_weights")
        if lack or no_dtype(run, self.storage, self.name):
            return lack or no_dtype(run, self.storage, self.name)
        if not component.cast:
            return f"layerwise casting would spare every layer of {component.class_name}"
        if self.skip != component.cast_skip:
            return f"{component.class_name} was measured with skip={list(component.cast_skip)}; use that"
        return None

    def redraw(self, run: Run) -> Run:
        """The component is stored in 8 bits."""
        return run.store(self.component, Stored(self.storage, original=self.keep_original))

    def apply(self, pipe: Any, device: str) -> Undo:
        """Casts the weights. There is a way back where they are kept."""
        part = getattr(pipe, self.component)
        if not self.keep_original:
            self._cast(part)
            return lambda: None
        with ExitStack() as ways_back:
            ways_back.callback(registries(part))

            def cast() -> None:
                ways_back.callback(originals(part.parameters(), partial(self._cast, part)))

            ways_back.callback(switched(part.modules(), cast))
            return ways_back.pop_all().close

    def _cast(self, part: Any) -> None:
        import torch
        from diffusers.hooks import apply_layerwise_casting

        storage = getattr(torch, self.storage)
        if self.skip:
            apply_layerwise_casting(part, storage, part.dtype, skip_modules_pattern=self.skip)
        else:
            part.enable_layerwise_casting(storage_dtype=storage)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A method of diffusers' models; for others the function behind it."""
        part = f"pipe.{self.component}"
        if not self.skip:
            return "import torch", f"{part}.enable_layerwise_casting(storage_dtype=torch.{self.storage})"
        return (
            "import torch",
            "from diffusers.hooks import apply_layerwise_casting",
            "apply_layerwise_casting(",
            f"    {part}, torch.{self.storage}, {part}.dtype,",
            f"    skip_modules_pattern=({', '.join(map(json.dumps, self.skip))},),",
            ")",
        )
