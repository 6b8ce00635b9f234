"""Makes strategies real on a live pipeline, all of them or none, and undoes them in reverse."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from memplan.errors import ApplyFailed, BadInput
from memplan.strategy import Decision, Seat, Strategy

_applied: WeakSet[Any] = WeakSet()
"""Pipelines that carry strategies now. Kept here, so that the pipelines themselves are not marked."""


@dataclass(frozen=True)
class Applied:
    """What is real on a pipeline now, in the order of application. As a context manager it undoes itself."""

    strategies: tuple[Strategy, ...]
    _undos: ExitStack

    @property
    def irreversible(self) -> tuple[str, ...]:
        """What undo() cannot bring back, and how to get it back: one sentence each."""
        return tuple(f"{s.name}: {s.irreversible}" for s in self.strategies if s.irreversible)

    def undo(self) -> None:
        """Undoes everything that can be undone, in reverse; a second time it does nothing."""
        self._undos.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def apply(strategies: Iterable[Strategy], pipe: Any, device: str = "cuda") -> Applied:
    """Applies formats, then calls, then placements, as the libraries need them.

    Raises BadInput for strategies that want the same seat and for a pipeline that carries strategies already, and
    ApplyFailed where one of them fails; the pipeline is then as it was, but for what is irreversible.
    """
    ordered = in_order(strategies)
    if pipe in _applied:
        raise BadInput("this pipeline carries a plan already: call undo() on what apply() returned, then apply again")
    _check_ready(pipe, device)
    with ExitStack() as undos:
        for number, strategy in enumerate(ordered):
            try:
                undo = strategy.apply(pipe, device)
            except Exception as error:
                raise ApplyFailed(_sentence(strategy, error, ordered[:number])) from error
            undos.callback(undo)
        _applied.add(pipe)
        undos.callback(_applied.discard, pipe)
        return Applied(ordered, undos.pop_all())


def _check_ready(pipe: Any, device: str) -> None:
    """Raises BadInput, before anything is changed, for an absent device and for components offloaded by others."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f'there is no {device} device here: apply the plan where there is one, or give device="cpu"')
    for name, part in pipe.components.items():
        hooked = [m for m in part.modules() if _offloaded(m)] if isinstance(part, torch.nn.Module) else []
        if hooked:
            raise BadInput(f"{name} is offloaded already: remove that first, or load the pipeline anew, then apply")


def _offloaded(module: Any) -> bool:
    registry = vars(module).get("_diffusers_hook")
    grouped = registry is not None and registry.get_hook("group_offloading") is not None
    return grouped or hasattr(module, "_hf_hook")


def in_order(strategies: Iterable[Strategy]) -> tuple[Strategy, ...]:
    """The strategies in the order in which they are applied. Raises BadInput where two want the same seat."""
    decisions = list(Decision)
    ordered = sorted(strategies, key=lambda s: min((decisions.index(seat.decision) for seat in s.seats), default=0))
    taken: dict[Seat, Strategy] = {}
    for strategy in ordered:
        for seat in sorted(strategy.seats):
            other = taken.setdefault(seat, strategy)
            if other is not strategy:
                raise BadInput(
                    f"{other.name} and {strategy.name} both decide the {seat.decision} of {seat.component}: keep one"
                )
    return tuple(ordered)


def _sentence(strategy: Strategy, error: Exception, done: tuple[Strategy, ...]) -> str:
    kept = [f"{s.name} stays: {s.irreversible}" for s in done if s.irreversible]
    return "; ".join([f"{strategy} could not be applied: {error}", *(kept or ["the pipeline is as it was before"])])
