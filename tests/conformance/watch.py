"""Writes down what is on the device while a real pipeline runs, and what the simulator says about the same moments."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from memplan.facts import Call
from memplan.run import Run
from memplan.simulator.movers import mover_of
from memplan.simulator.visits import visits
from tests.conformance.device import Device

Held = tuple[int, int]
"""Bytes of weights on the device: of the component that is called, and of all others."""


@dataclass
class Moments:
    """One call of a component, or the pipeline's own code (""): boundaries of modules, and what ops found after each.

    A boundary is "+path" where a module that has weights begins and "-path" where it returns.
    """

    component: str
    method: str = ""
    after: list[tuple[str, set[Held]]] = field(default_factory=lambda: [("", set())])


# ---- the real pipeline ----------------------------------------------------------------------------------------------
class Watch:
    """Follows the calls of a pipeline's components, and of their modules."""

    def __init__(self, pipe: Any, device: Device) -> None:
        self.device = device
        self.parts = {n: p for n, p in pipe.components.items() if isinstance(p, torch.nn.Module)}
        self.roots = {id(part): name for name, part in self.parts.items()}
        self.paths = {
            id(module): path
            for part in self.parts.values()
            for path, module in part.named_modules()
            if path and any(True for _ in (*module.parameters(), *module.buffers()))
        }
        self.seen = [Moments("")]
        device.on_op = self.on_op

    def on_op(self) -> None:
        held, visit = self.device.held, self.seen[-1]
        own = held.get(visit.component, 0)
        visit.after[-1][1].add((own, sum(held.values()) - own))

    def enter(self, module: torch.nn.Module, *_: Any) -> None:
        if id(module) in self.roots:
            self.seen.append(Moments(self.roots[id(module)], "forward"))
        elif id(module) in self.paths:
            self.seen[-1].after.append((f"+{self.paths[id(module)]}", set()))

    def leave(self, module: torch.nn.Module, *_: Any) -> None:
        if id(module) in self.roots:
            self.seen.append(Moments(""))
        elif id(module) in self.paths:
            self.seen[-1].after.append((f"-{self.paths[id(module)]}", set()))

    def noting(self, name: str, method: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(Moments(name, method))
            result = real(*args, **kwargs)
            self.seen.append(Moments(""))
            return result

        return called


@contextmanager
def watched(pipe: Any, device: Device) -> Generator[list[Moments]]:
    """The moments of what `pipe` does meanwhile."""
    watch = Watch(pipe, device)
    handles = register_module_forward_pre_hook(watch.enter), register_module_forward_hook(watch.leave)
    doors = [(n, p, m) for n, p in watch.parts.items() for m in ("encode", "decode") if hasattr(p, m)]
    before = [(part, method, vars(part).get(method)) for _, part, method in doors]
    for name, part, method in doors:
        setattr(part, method, watch.noting(name, method, getattr(part, method)))
    try:
        yield watch.seen
    finally:
        for part, method, own in before:
            delattr(part, method) if own is None else setattr(part, method, own)
        for handle in handles:
            handle.remove()
        device.on_op = lambda: None


# ---- the picture ----------------------------------------------------------------------------------------------------
def drawn(run: Run) -> Iterator[tuple[Moments, bool]]:
    """The moments of `run` as the simulator has them, call by call; and whether parts of a call stand for several."""
    for visit in visits(run):
        for _ in range(visit.step.repeat if visit.call.component else 1):
            repeated = any(segment.repeat > 1 for segment in visit.call.segments)
            yield (
                Moments(visit.call.component, visit.call.method, _after(run, visit.call, sum(visit.others.values()))),
                repeated,
            )


def _after(run: Run, call: Call, others: int) -> list[tuple[str, set[Held]]]:
    if not call.component:
        return [("", {(0, others)})]
    component = run.facts.model.component(call.component)
    entered = [call.modules[module] for segment in call.segments for module in segment.enters]
    followed = entered if call.method == "forward" else []
    mover = mover_of(component, run.placement(component.name), run.stored(component.name), followed)
    after = [("", {(mover.resident, others)})]
    for segment in call.segments:
        for sign, modules, move in (("+", segment.enters, mover.enter), ("-", segment.leaves, mover.leave)):
            for path in (call.modules[module] for module in modules):
                move(path, 1)
                here = {(mover.resident, others)}
                after = [*after, (sign + path, here)] if path else [("", here), *after[1:]] if sign == "+" else after
    return after
