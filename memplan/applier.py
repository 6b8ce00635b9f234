"""Makes strategies real on a live pipeline, all of them or none, and undoes them in reverse."""

import ctypes
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary, ref

from memplan.errors import ApplyFailed, BadInput, InPart, NoDevice
from memplan.strategy import STREAMED, Strategy, in_order

HELD = "_memplan_applied"
"""The attribute by which a pipeline, or modules without one, hold what is applied to them."""


@dataclass(frozen=True, repr=False)
class Applied:
    """What is real on a pipeline now, in the order of application. As a context manager it undoes itself."""

    strategies: tuple[Strategy, ...]
    _undos: ExitStack

    @property
    def plan(self) -> str:
        """The plan as people type it."""
        return " + ".join(map(str, self.strategies)) or "nothing"

    @property
    def irreversible(self) -> tuple[str, ...]:
        """What undo() cannot bring back, and how to get it back: one sentence each."""
        return one_way(self.strategies)

    def __repr__(self) -> str:
        """The plan, and what of it stays."""
        return f"<Applied: {'. '.join([self.plan, *self.irreversible])}>"

    def undo(self) -> None:
        """Undoes everything that can be undone, in reverse; a second time it does nothing."""
        self._undos.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


_carried: WeakKeyDictionary[Any, "ref[Applied]"] = WeakKeyDictionary()
"""Components that carry strategies now, and those strategies; pipelines may share components."""


class _Held:
    """What is applied, kept for as long as its pipeline lives. It travels into no copy and into no file."""

    def __init__(self, applied: Applied | None = None) -> None:
        self.applied = applied

    def __deepcopy__(self, memo: Any) -> "_Held":
        return _Held()

    def __reduce__(self) -> Any:
        return _Held, ()


def applied(pipe: Any) -> Applied | None:
    """What apply() has made real on components of `pipe` and nobody has undone; None where that is nothing."""
    return next(filter(None, map(_carries, _modules(pipe).values())), None)


def _carries(part: Any) -> Applied | None:
    found = _carried.get(part)
    return found() if found else None


def _hold(pipe: Any, parts: Mapping[str, Any], done: Applied) -> None:
    """Has `pipe` hold what is done, or the modules themselves where they come without a pipeline."""
    _carried.update(dict.fromkeys(parts.values(), ref(done)))
    for holder in (pipe,) if hasattr(pipe, "config") else parts.values():
        vars(holder)[HELD] = _Held(done)


def _forget(pipe: "ref[Any]", parts: Mapping[str, Any]) -> None:
    for holder in filter(None, (pipe(), *parts.values())):
        vars(holder).pop(HELD, None)
    for part in parts.values():
        _carried.pop(part, None)


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
    check_device(device)
    check_free(pipe)
    with ExitStack() as undos, freed_at_once() if device == "cpu" else nullcontext():
        for number, strategy in enumerate(ordered):
            try:
                undo = strategy.apply(pipe, device)
            except Exception as error:
                raise ApplyFailed(_sentence(strategy, error, ordered[:number])) from error
            undos.callback(undo)
        undos.callback(_forget, ref(pipe), parts)  # weakly, so that a pipeline that nobody has goes at once
        done = Applied(ordered, undos.pop_all())
        _hold(pipe, parts, done)
        return done


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SMALL, LARGEST = 1 << 16, 1 << 25
"""The block from which glibc maps each by itself while a plan is applied, and the one that it comes to on its own."""


@contextmanager
def freed_at_once() -> Generator[None]:
    """Freed blocks go back to the system at once, where the C library is glibc.

    Else it would keep what conversions on the CPU free: by its own rule it maps blocks by themselves only from the
    largest one on that was freed so far, up to 32 MiB (mallopt(3)). That is where it is afterwards.
    """
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    set_to = getattr(library, "mallopt", lambda option, value: None)
    set_to(M_MMAP_THRESHOLD, SMALL)
    try:
        yield
    finally:
        set_to(M_MMAP_THRESHOLD, LARGEST)
        set_to(M_TRIM_THRESHOLD, 2 * LARGEST)


def _modules(pipe: Any) -> dict[str, Any]:
    import torch

    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def check_device(device: str) -> None:
    """Raises NoDevice for a CUDA device that is not here."""
    import torch

    kind, _, number = device.partition(":")
    if kind == "cuda" and torch.cuda.device_count() <= int(number or 0):
        raise NoDevice(f"There is no {device} device here.")


WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
"""Classes of torch whose instances train a module on several devices, by name: importing them takes long."""


def check_free(pipe: Any) -> None:
    """Raises BadInput for components that carry a plan, which it names, are offloaded, or are wrapped for training."""
    for name, part in _modules(pipe).items():
        wrapper = _wrapper(part)
        if wrapper:
            inside = f"apply the plan to the module that it was made of, then wrap {name} in it"
            raise BadInput(f"{name} is wrapped in {wrapper} already: {inside}")
        if part in _carried:
            raise BadInput(_taken(name, _carries(part)))
        if any(offloaded(module) for module in part.modules()):
            raise BadInput(f"{name} is offloaded already: remove that first, or load the pipeline anew, then apply")


def _taken(name: str, carried: Applied | None) -> str:
    if carried is None:
        return f"{name} carries a plan already, of a pipeline that is gone: load it anew"
    return f"{name} carries a plan already, {carried.plan}: call undo() on memplan.applied(pipe), then apply another"


def _wrapper(part: Any) -> str:
    """The name of what `part`, or a module in it, is wrapped in for training on several devices; "" for none."""
    kinds = (kind.__name__ for kind in dict.fromkeys(c for m in part.modules() for c in type(m).__mro__))
    return next((name for name in kinds if name in WRAPPERS), "")


def offloaded(module: Any) -> bool:
    """Whether hooks bring the weights of `module` to the device and take them away again."""
    registry = vars(module).get("_diffusers_hook")
    grouped = registry is not None and registry.get_hook("group_offloading") is not None
    return grouped or hasattr(module, "_hf_hook") or STREAMED in vars(module)


def _sentence(strategy: Strategy, error: Exception, done: tuple[Strategy, ...]) -> str:
    told = isinstance(error, BadInput | ApplyFailed)  # raised before anything is changed, or with what has been
    kept = [f"{s.name} stays: {s.final}" for s in (done if told else (*done, strategy)) if s.final]
    rest = [] if kept or isinstance(error, InPart) else ["the pipeline is as it was before"]
    return "; ".join([f"{strategy} could not be applied: {error}", *kept, *rest])
