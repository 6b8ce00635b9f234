"""Stands at the doors of the components: real inputs go in as fake tensors, zeros of the right shape come out.

A call that was made before with the same shapes is replayed from memory.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from memplan.probes.fakes.values import Source, carries, keep, snapshot
from memplan.probes.trace.calling import Switches, called
from memplan.probes.trace.known import KnownOps
from memplan.probes.trace.ledger import Ledger, Pools, Recording
from memplan.probes.trace.operands import tensors_in
from memplan.probes.trace.regions import regions
from memplan.probes.trace.replay import replaying
from memplan.probes.trace.shapes import check_sizes, fill, shapes, signature
from memplan.probes.trace.tracker import Tracker
from memplan.probes.trace.variants import others

METHODS = ("forward", "encode", "decode")
"""Methods of a component through which pipelines reach it."""


@dataclass
class Visit:
    """One traced call of a component's method, what it returns, and what was live when it was last made.

    `others` are the ways to make it that hold other memory, and what they hold.
    """

    component: str
    method: str
    recording: Recording
    result: Any
    base: int
    others: dict[tuple[str, ...], Recording] = field(default_factory=dict)
    sources: dict[int, Source] = field(default_factory=dict)

    def holds_for(self, given: dict[int, torch.Tensor]) -> bool:
        """Whether the values that the call looked at, by the place of the argument, are the same in `given`."""
        looked_at = {place: source.value for place, source in self.sources.items() if source.read}
        return all(place in given and torch.equal(given[place], value) for place, value in looked_at.items())


@dataclass(frozen=True, eq=False)
class Door:
    """A method of a component, and the original that stands behind it."""

    component: str
    module: nn.Module
    method: str
    original: Callable[..., Any]


@dataclass
class Doors:
    """All doors of one pipeline. `seen` are the visits made so far, by what makes two calls alike.

    `on_trace` is told the component before a call is traced; `on_called` of each call its component and its method,
    `on_given` and `on_returned` what goes in and what comes out. `failed` says which components fail when called
    another way, though not as they are, and in which words: tiles may be smaller than what a layer takes. `switches`
    do the ways that are tried only because somebody asks.
    """

    ledger: Ledger
    mode: FakeTensorMode
    device: str
    on_arrival: Callable[[], None]
    on_visit: Callable[[Visit], None]
    on_trace: Callable[[str], None] = lambda component: None
    on_given: Callable[[str, Any], None] = lambda component, inputs: None
    on_returned: Callable[[str, Any], None] = lambda component, result: None
    on_called: Callable[[str, str], None] = lambda component, method: None
    seen: dict[Any, list[Visit]] = field(default_factory=dict)
    failed: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)
    inside: bool = False
    switches: Switches = field(default_factory=dict)

    def __post_init__(self) -> None:
        """No op has run in a component."""
        self.known = KnownOps(self.mode)

    @contextmanager
    def open(self, components: dict[str, nn.Module]) -> Generator[None]:
        """Stand at the doors of `components` for the length of the context."""
        with ExitStack() as stack:
            for name, module in components.items():
                for method in METHODS:
                    if callable(getattr(type(module), method, None)):
                        stack.callback(self._guard(Door(name, module, method, getattr(module, method))))
            yield

    def _guard(self, door: Door) -> Callable[[], None]:
        attributes = vars(door.module)
        had = attributes.get(door.method)

        @wraps(door.original)  # pipelines look at what a component's forward takes
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return door.original(*args, **kwargs) if self.inside else self.visit(door, args, kwargs)

        def restore() -> None:
            attributes.pop(door.method, None)
            if had is not None:
                attributes[door.method] = had

        attributes[door.method] = guarded
        return restore

    def visit(self, door: Door, args: Any, kwargs: Any) -> Any:
        """Trace or replay one call; returns real zeros shaped like its result."""
        self.on_arrival()
        self.on_called(door.component, door.method)
        self.on_given(door.component, (args, kwargs))
        key = (door.component, door.method, signature((args, kwargs)))
        given = self._given((args, kwargs))
        visit = next((v for v in self.seen.get(key, ()) if v.holds_for(given)), None)
        if visit is None:
            self.on_trace(door.component)
            before = self.ledger.pools()
            visit = self._trace(door, (args, kwargs))
            trace = partial(self._trace_otherwise, door, (args, kwargs), visit.result, before)
            way = (door.module, door.method, (args, kwargs), visit.recording)
            visit.others = others(*way, trace, asked=self.switches.keys())
            self.seen.setdefault(key, []).append(visit)
        visit.base = self.ledger.live
        self.on_visit(visit)
        result = self._zeros(visit.result)
        self.on_returned(door.component, result)
        return result

    def visits(self) -> list[Visit]:
        """All that was traced, once each."""
        return [visit for alike in self.seen.values() for visit in alike]

    def _trace_otherwise(
        self, door: Door, inputs: Any, expected: Any, before: Pools, ways: tuple[str, ...]
    ) -> Recording | None:
        """The same call made in these `ways`; None where it fails, or does not return what is `expected`."""
        stored = {name: (weight.dtype, weight.stride()) for name, weight in _named(door.module)}
        try:
            with called(door.module, ways, self.switches), self.ledger.aside(before):
                other = [(name, w) for name, w in _named(door.module) if (w.dtype, w.stride()) != stored[name]]
                for _, weight in other:
                    self.ledger.admit(weight, counted=False)
                made = self._trace(door, inputs)
                recast = ((name, w) for name, w in other if w.dtype != stored[name][0])
                made.recording.recast = tuple((name, str(w.dtype).removeprefix("torch.")) for name, w in recast)
            if not self.switches.keys().isdisjoint(ways):
                check_sizes(made.result, expected)
            return made.recording
        except Exception as error:
            self.failed[door.component, ways] = str(error).partition("\n")[0] or type(error).__name__
            return None

    def _trace(self, door: Door, inputs: Any) -> Visit:
        """Run one call on fake tensors and record it."""
        ledger = self.ledger
        interrupted = ledger.begin(door.component, frozenset(regions(door.module)))
        sources = {place: Source(snapshot(tensor)) for place, tensor in self._given(inputs).items()}
        self.inside = True
        try:
            with boundaries(door.module, ledger), replaying(door.module, ledger, self.mode), self.mode, self._tracker():
                args, kwargs = self._fakes(inputs, sources)
                if door.method == "forward":
                    ledger.enter("")
                outermost = vars(door.module).get(door.method, door.original)  # what a switch hung before it
                result = outermost(*args, **kwargs)
                if door.method == "forward":
                    ledger.returned("", tensors_in(tree_leaves(result)))
                    ledger.leave("")
            shape = shapes(result)
            del result, args, kwargs
        finally:
            self.inside = False
            recording = ledger.end(interrupted)
        return Visit(door.component, door.method, recording, shape, recording.base, sources=sources)

    def _tracker(self) -> Tracker:
        return Tracker(self.ledger, self.device, self.known)

    def _given(self, inputs: Any) -> dict[int, torch.Tensor]:
        """The tensors among `inputs` whose values are those of the real call, by their place."""
        leaves = enumerate(tree_leaves(inputs))
        return {
            place: leaf for place, leaf in leaves if _is_real(leaf) and carries(leaf) and not self.ledger.doubts(leaf)
        }

    def _fakes(self, inputs: Any, sources: dict[int, Source]) -> Any:
        """`inputs` with fake tensors for real ones, whose bytes are in the account already; they keep `sources`."""
        leaves, tree = tree_flatten(inputs)
        for place, leaf in enumerate(leaves):
            if _is_real(leaf):
                leaves[place] = fake = self.mode.from_tensor(leaf)
                self.ledger.admit(fake, counted=False)
                if place in sources:
                    keep(fake, snapshot(sources[place].value), [sources[place]])
                else:
                    vars(fake).pop("value", None)
        return tree_unflatten(leaves, tree)

    def _zeros(self, result: Any) -> Any:
        def admit(zeros: torch.Tensor, known: bool) -> None:
            self.ledger.admit(zeros)
            if not known:
                self.ledger.doubt(zeros)

        return fill(result, admit)


def _is_real(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)


@contextmanager
def boundaries(root: nn.Module, ledger: Ledger) -> Generator[None]:
    """Tell the ledger when a submodule of `root` that holds weights begins and returns."""
    paths = {id(m): name for name, m in root.named_modules() if name and next(_weights(m), None) is not None}
    shown = {id(m) for name, m in root.named_modules() if "." not in name or next(m.children(), None) is not None}

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in paths:
            ledger.enter(paths[id(module)])
            if isinstance(module, nn.Linear) and args and args[0].numel():
                ledger.give(paths[id(module)], args[0].numel() // args[0].shape[-1])

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if id(module) in paths:
            if id(module) in shown:
                ledger.returned(paths[id(module)], tensors_in((result,)))
            ledger.leave(paths[id(module)])

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _weights(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
