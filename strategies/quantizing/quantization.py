"""What all quantizers share: which layers they convert, what they refuse, and how one layer after the other is done."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

from memplan.errors import ApplyFailed, BadInput, InPart
from memplan.facts import Component, Facts
from memplan.run import Run, Stored
from memplan.strategy import Config, Decision, Seat, Strategy, Undo

from ..live.trimmed import trim
from ..rules.needs import Needs
from .layers import drained, hooked_like, kept, layers
from .skipping import skipped
from .sparing import absent, most_worth

LIBRARIES = ("diffusers", "transformers")
"""Those whose from_pretrained() quantizes."""

_converted: WeakKeyDictionary[Any, "Quantization"] = WeakKeyDictionary()
"""Components of which layers were converted for good, and by what: applied again, it goes on with the others."""


@dataclass(frozen=True)
class Quantization(Strategy):
    """Stores the matrices of linear layers in fewer bits.

    `spare` names modules that stay as they are, `keep_original` holds their weights in host memory, for undo().
    """

    component: str
    spare: tuple[str, ...] = ()
    keep_original: bool = False

    needs: ClassVar[Needs]
    lookup: ClassVar[str]
    multiples: ClassVar[tuple[int, int]] = (1, 1)
    breaks: ClassVar[tuple[tuple[str, str], ...]] = ()
    irreversible: ClassVar[str | None] = (
        "quantizing gives up the original weights: keep them with keep_original=true, or reload the component with "
        "from_pretrained()"
    )

    @property
    @abstractmethod
    def format(self) -> str:
        """How the simulator names the format."""

    @property
    def sides(self) -> tuple[int, int]:
        """The library converts a matrix whose columns and rows are multiples of these."""
        return self.multiples

    @property
    def excluded(self) -> tuple[tuple[str, str], ...]:
        """(technique, sentence) for what the format breaks."""
        return self.breaks

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
        """One for each component that is called as a whole and can be converted; VAEs are left to those who ask."""
        called = {call.component for call in facts.trace.calls if call.method == "forward"}
        for component in facts.model.components:
            if component.name in called and not cls._unfit(component):
                yield cls(component.name, **cls.measured(component))

    @classmethod
    def measured(cls, component: Component) -> Mapping[str, Any]:
        """What the library leaves of itself."""
        return {"spare": dict(component.spared).get(cls.lookup, ())}

    @classmethod
    def needed(cls) -> str:
        """The library, and devices that it runs on."""
        return str(cls.needs)

    @classmethod
    def _unfit(cls, component: Component) -> str | None:
        return component.lack("quantization") or component.lack("own_weights")

    def finer(self, facts: Facts) -> Sequence[Self]:
        """More layers left as they are: those with the largest error, else the first and the last block."""
        component = facts.model.component(self.component)
        names = most_worth(component, component.matrices(self.spare, self.sides), self.format)
        return [replace(self, spare=(*self.spare, *names[:count])) for count in range(1, len(names) + 1)]

    def refuses(self, run: Run) -> str | None:
        """Refuses what cannot be converted, machines that cannot compute with it, and what would break the model."""
        component = run.facts.model.component(self.component)
        unfit = self._unfit(component) or self.needs.lacking(run.facts.machine, self.name)
        if unfit:
            return unfit
        needed = self.measured(component)["spare"]
        missing = [name for name in needed if name not in self.spare]
        if missing:
            return f"{component.class_name} needs {', '.join(missing)} as it is: name it in spare"
        nothing = absent(component, tuple(name for name in self.spare if name not in needed))
        if nothing:
            return nothing
        if not component.matrices(self.spare):
            return f"{self.name} would spare every linear layer of {component.class_name}"
        return None if component.matrices(self.spare, self.sides) else self._leaves_all(component)

    def _leaves_all(self, component: Component) -> str:
        named = zip(("columns", "rows"), self.sides, strict=True)
        taken = " and ".join(f"{side} are a multiple of {multiple}" for side, multiple in named if multiple > 1)
        return f"{self.name} would leave every linear layer of {component.class_name}: it takes weights whose {taken}"

    def redraw(self, run: Run) -> Run:
        """The matrices of linear layers are stored in this format."""
        kind = run.facts.model.component(self.component).class_name
        broken = tuple((technique, sentence.format(kind=kind)) for technique, sentence in self.excluded)
        return run.store(self.component, Stored(self.format, self.spare, self.keep_original, broken, self.sides))

    # ---- at loading -------------------------------------------------------------------------------------------------
    @abstractmethod
    def loaded(self, component: Component, skip: tuple[str, ...]) -> Config | None:
        """The config with which the component's own library loads it so; where `skip` is (), by its own rule."""

    def config(self, component: Component) -> Config | None:
        """The config of the component's library, unless it would leave other layers than this does."""
        loads = component.library in LIBRARIES and not component.lack("quantized_loading")
        skip = skipped(component, self.lookup, self.spare) if loads else None
        return None if skip is None else self.loaded(component, skip)

    # ---- the deed ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def convert(self, part: Any, path: str, layer: Any, device: str) -> None:
        """Quantizes `layer`, at `path` of `part`, on `device`; afterwards it is where it was."""

    def apply(self, pipe: Any, device: str) -> Undo:
        """Quantizes one layer after the other, so that no more than one has its weight twice.

        What the same strategy has converted already is left alone. Raises BadInput, before anything is changed, for a
        component that is quantized otherwise or in float8, has an adapter, or no linear layer; InPart where it fails
        with layers converted that cannot be put back; and ApplyFailed where it fails and nothing has changed.
        """
        part = getattr(pipe, self.component)
        found = self._found(part)
        count = len(found)
        with ExitStack() as originals:
            try:
                for path, layer in drained(found):
                    self._convert(part, path, layer, device, originals)
            except Exception as error:
                raise self._failed(part, error, count - len(found) - 1, count) from error
            return originals.pop_all().close

    def _convert(self, part: Any, path: str, layer: Any, device: str, originals: ExitStack) -> None:
        if self.keep_original:
            originals.callback(kept(part, path, layer))
        self.convert(part, path, layer, device)
        made = part.get_submodule(path)
        if made is not layer:
            hooked_like(layer, made)
        if made is not layer and self.keep_original:
            layer._parameters.clear()  # of aliases, or the device would hold the weights for them
        if not self.keep_original:
            _converted[part] = self
        trim()

    def _failed(self, part: Any, error: Exception, converted: int, count: int) -> ApplyFailed:
        """The error to raise after `converted` of `count` layers."""
        if part not in _converted:
            return ApplyFailed(str(error))
        return InPart(
            f"{error}; {self.component} is quantized in part, {converted} of {count} layers more: apply the plan again "
            f"to go on, or reload it with from_pretrained()"
        )

    def _found(self, part: Any) -> list[tuple[str, Any]]:
        """The layers that are yet to be converted. Raises BadInput as apply() does."""
        import torch

        plain, begun = torch.nn.Parameter, _converted.get(part) == self
        linear = [layer for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
        kinds = (type(layer._parameters.get("weight")) for layer in linear)
        kind = next((kind for kind in kinds if kind not in (plain, type(None))), None)
        if kind and not begun:
            raise BadInput(f"{self.component} holds weights of type {kind.__name__} already: load it unquantized")
        if any(type(w) is plain and w.is_floating_point() and w.dtype.itemsize == 1 for w in part.parameters()):
            raise BadInput(f"{self.component} is stored in float8 already: load it in the dtype that it computes in")
        if any(hasattr(layer, "adapter_layer_names") for layer in part.modules()):
            raise BadInput(f"{self.component} has an adapter, such as a LoRA: unload it, quantize, and load it again")
        if any("forward" in vars(layer) for layer in linear):
            raise BadInput(f"{self.component} has layers that are called through hooks: load it anew")
        found = [(path, layer) for path, layer in layers(part, self.spare, self.sides) if type(layer.weight) is plain]
        if not found and not begun:
            raise BadInput(f"{self.component} has no linear layer that {self.name} could convert")
        return found
