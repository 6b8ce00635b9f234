"""Makes strategies real on a live pipeline, all of them or none, and undoes them in reverse."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from memplan.errors import ApplyFailed, BadInput
from memplan.strategy import Strategy, in_order

_applied: WeakSet[Any] = WeakSet()
"""Components that carry strategies now. Kept here, so that they are not marked; pipelines may share components."""


@dataclass(frozen=True, repr=False)
class Applied:
    """What is real on a pipeline now, in the order of application. As a context manager it undoes itself."""

    strategies: tuple[Strategy, ...]
    _undos: ExitStack

    @property
    def irreversible(self) -> tuple[str, ...]:
        """What undo() cannot bring back, and how to get it back: one sentence each."""
        return one_way(self.strategies)

    def __repr__(self) -> str:
        """The plan, and what of it stays."""
        plan = " + ".join(map(str, self.strategies)) or "nothing"
        return f"<Applied: {'. '.join([plan, *self.irreversible])}>"

    def undo(self) -> None:
        """Undoes everything that can be undone, in reverse; a second time it does nothing."""
        self._undos.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def one_way(strategies: Iterable[Strategy]) -> tuple[str, ...]:
    """What of a plan undo() can't bring back, and how to get it back: one sentence for each technique."""
    sentences = (f"{s.name} can't be undone; {s.final}" for s in strategies if s.final)
    return tuple(dict.fromkeys(sentences))


def apply(strategies: Iterable[Strategy], pipe: Any, device: str = "cuda") -> Applied:
    """Applies formats, then calls, then placements, as the libraries need them.

    Raises BadInput for strategies that want the same seat and for a component that carries strategies already, and
    ApplyFailed where one of them fails; the pipeline is then as it was, but for what is irreversible.
    """
    ordered = in_order(strategies)
    parts = _modules(pipe)
    _check_ready(parts, device)
    with ExitStack() as undos:
        for number, strategy in enumerate(ordered):
            try:
                undo = strategy.apply(pipe, device)
            except Exception as error:
                raise ApplyFailed(_sentence(strategy, error, ordered[:number])) from error
            undos.callback(undo)
        _applied.update(parts.values())
        undos.callback(_applied.difference_update, parts.values())
        return Applied(ordered, undos.pop_all())


def _modules(pipe: Any) -> dict[str, Any]:
    import torch

    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def _check_ready(parts: Mapping[str, Any], device: str) -> None:
    """Raises BadInput, before anything is changed, for an absent device and for components planned or offloaded."""
    import torch

    planned = next((name for name, part in parts.items() if part in _applied), None)
    if planned:
        raise BadInput(f"{planned} carries a plan already: call undo() on what apply() returned, then apply again")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f'there is no {device} device here: apply the plan where there is one, or give device="cpu"')
    for name, part in parts.items():
        if any(_offloaded(module) for module in part.modules()):
            raise BadInput(f"{name} is offloaded already: remove that first, or load the pipeline anew, then apply")


def _offloaded(module: Any) -> bool:
    registry = vars(module).get("_diffusers_hook")
    grouped = registry is not None and registry.get_hook("group_offloading") is not None
    return grouped or hasattr(module, "_hf_hook")


def _sentence(strategy: Strategy, error: Exception, done: tuple[Strategy, ...]) -> str:
    begun = done if isinstance(error, BadInput) else (*done, strategy)  # which is raised before anything is changed
    kept = [f"{s.name} stays: {s.final}" for s in begun if s.final]
    return "; ".join([f"{strategy} could not be applied: {error}", *(kept or ["the pipeline is as it was before"])])
