"""The torso of a denoiser computes in another dtype than its edges."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import COMPUTED, Component, Facts
from memplan.run import Run, Stored
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.own_dtype import HOOK, HUNG
from .live.torso import SELECTED, SELECTION, converts, recast, torso
from .rules.refusals import check_free

DTYPES = ("bfloat16", "float16", "float32")
BFLOAT16_SINCE = (8, 0)
"""The compute capability from which PyTorch's attention kernels take bfloat16."""


@dataclass(frozen=True)
class ComputeDtype(Strategy):
    """A denoiser's blocks compute in another dtype, while its norms, embeddings and outer projections keep theirs.

    A model in float32 takes about half in "bfloat16" or "float16". Where a card has no fast bfloat16, as before compute
    capability 8.0 and on Apple's GPUs, "float16" is faster, and attention needs not hold its scores. Linear layers and
    convolutions of the blocks are cast; each layer is given its inputs in the dtype of its own weight, and a norm gives
    back the dtype that it was given. What blocks add up keeps the dtype of the edges, or a wider one. A model that has
    a convert_to(dtype) of its own is left to that. The VAE stays as it is.

    It costs the last bits: pictures of one seed change. So it is never picked by itself, and a plan that names it has
    a dry run of its own made. Denoisers that take turns are cast together: `also` names the others. `keep_original`
    holds the weights in host memory, for undo().

    Traps: float16 ends at 65504, and a model trained in bfloat16 may exceed that inside a block, which makes black
    pictures; load LoRAs first; it excludes quantizers and layerwise casting of the same component.
    """

    component: str
    dtype: str = "float16"
    also: str = ""
    keep_original: bool = False

    name: ClassVar[str] = "compute_dtype"
    opt_in: ClassVar[str] = "pictures of one seed change with it"
    irreversible: ClassVar[str | None] = (
        "casting gives up the original weights: keep them with keep_original=true, or reload the component with "
        "from_pretrained()"
    )

    @property
    def final(self) -> str | None:
        """Nothing is final where the original is kept."""
        return None if self.keep_original else self.irreversible

    @property
    def seats(self) -> frozenset[Seat]:
        """In which format these components are stored."""
        return frozenset(Seat(Decision.FORMAT, name) for name in self.components)

    @property
    def components(self) -> tuple[str, ...]:
        """`component`, and those that `also` names, joined by "+"."""
        return (self.component, *filter(None, self.also.split("+")))

    @property
    def way(self) -> str:
        """How the dry run names calls in this dtype."""
        return f"{COMPUTED}:{self.dtype}"

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """Half precision for denoisers in float32, and float16 for others where bfloat16 is slow."""
        slow = _slow_in_bfloat16(facts)
        half = "float16" if slow else "bfloat16"
        for group in _groups(facts):
            loaded = facts.model.component(group[0]).dtype
            if loaded == "float32" or (loaded == "bfloat16" and slow):
                yield cls(group[0], half, "+".join(group[1:]))

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Callable[[Any], Undo]]:
        """One way: what computes in the dtype that is asked for."""
        dtype = settings.get("dtype", cls.dtype)
        return {f"{COMPUTED}:{dtype}": partial(recast, dtype=dtype, keep=True)} if dtype in DTYPES else {}

    def refuses(self, run: Run) -> str | None:
        """Refuses other dtypes, what is no denoiser or has no torso to cast, and calls that were not dry-run so."""
        if self.dtype not in DTYPES:
            return f"dtype is {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not {self.dtype}"
        groups = _groups(run.facts)
        group = next((group for group in groups if self.component in group), ())
        other = next((name for name in self.components if name not in group), None)
        if other is not None:
            return f"{self.name} is for denoisers, and those of one class together; {other} is none of them"
        missing = [name for name in group if name not in self.components]
        if missing:
            return f"{' and '.join(group)} take turns: add also={'+'.join(missing)}"
        return next(filter(None, (self._unfit(run, run.facts.model.component(name)) for name in group)), None)

    def _unfit(self, run: Run, component: Component) -> str | None:
        """The sentence about a component that cannot be cast, or was not dry-run when it is."""
        if any(w.dtype in ("uint8", "float8_e4m3fn", "float8_e5m2") and not w.buffer for w in component.weights):
            return f"{component.class_name} is stored quantized already"
        failure = run.facts.trace.failure(component.name, self.way)
        if failure or component.lack("own_weights"):
            return component.lack("own_weights") or f"{component.name} fails in {self.dtype}: {failure}"
        if self.way not in run.facts.trace.ways(component.name):
            return f"{self.name} needs a dry run in {self.dtype}: price the plan that names it"
        if not run.facts.trace.recast(component.name, self.way):
            return f"no block of {component.class_name} would change its dtype to {self.dtype}"
        return None

    def redraw(self, run: Run) -> Run:
        """The weights that the dry run found cast have another dtype, and the calls are made in it."""
        for name in self.components:
            stored = Stored(original=self.keep_original, recast=run.facts.trace.recast(name, self.way))
            run = run.store(name, stored).vary(name, self.way)
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        """Casts one component after the other. Raises BadInput for one that is offloaded, or has no blocks."""
        parts = {name: getattr(pipe, name) for name in self.components}
        for name, part in parts.items():
            check_free(name, part)
            if not converts(part) and not torso(part):
                raise BadInput(f"{name} has no blocks of linear layers or convolutions: {self.name} knows no torso")
        with ExitStack() as undos:
            for part in parts.values():
                undos.callback(recast(part, self.dtype, self.keep_original))
            ways_back = undos.pop_all()
            return ways_back.close if self.keep_original else lambda: None

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """The model's own way, or the hook and a loop over its layers."""
        names = ", ".join(f"pipe.{name}" for name in self.components)
        return (
            *HOOK,
            f"for part in ({names},):",
            '    if hasattr(part, "convert_to"):',
            f"        part.convert_to(torch.{self.dtype})",
            "        continue",
            *SELECTION,
            "    for path, layer in list(part.named_modules()):",
            f"        if {SELECTED}:",
            f"            layer.to(torch.{self.dtype})",
            *HUNG,
        )


def _groups(facts: Facts) -> list[tuple[str, ...]]:
    """Denoisers by name: those of one class take turns, and are cast together."""
    calls = facts.trace.calls
    others = {call.component for call in calls if call.method != "forward"}
    called = {call.component for call in calls} - others
    groups: dict[str, tuple[str, ...]] = {}
    for part in facts.model.components:
        if part.name in called and part.library != "transformers":
            groups[part.class_name] = (*groups.get(part.class_name, ()), part.name)
    return list(groups.values())


def _slow_in_bfloat16(facts: Facts) -> bool:
    gpu = facts.machine.gpu
    if gpu is None or gpu.kind == "mps":
        return gpu is not None
    return gpu.kind == "cuda" and gpu.capability is not None and gpu.capability < BFLOAT16_SINCE
