"""Single components behind doors of their own, without a pipeline around them."""

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memplan.probes.fakes.fake import fake_in_place, fresh_mode
from memplan.probes.trace.doors import Doors, Visit
from memplan.probes.trace.kernels import Kernels
from memplan.probes.trace.ledger import Ledger, Recording
from memplan.probes.trace.tracker import Tracker


@dataclass(frozen=True)
class Room:
    """A component with fake weights, the account of what it does, and its visits in order."""

    part: Any
    ledger: Ledger
    doors: Doors
    visits: list[Visit]


@contextmanager
def room(component: nn.Module, name: str = "part") -> Generator[Room]:
    """Stand at the doors of a fake copy of `component`, with the CPU's kernels."""
    mode, ledger = fresh_mode(), Ledger(unit=1)
    part = copy.deepcopy(component)
    fake_in_place(part, mode)
    for weight in (*part.parameters(), *part.buffers()):
        ledger.own(weight)
    visits: list[Visit] = []
    doors = Doors(ledger, mode, "cpu", lambda: None, visits.append)
    with torch.no_grad(), doors.open({name: part}), Kernels(ledger, "cpu"), Tracker(ledger, "cpu"):
        yield Room(part, ledger, doors, visits)


def visit(component: nn.Module, call: Callable[[Any], Any]) -> Visit:
    """The only visit that `call` pays to a fake copy of `component`."""
    with room(component) as inside:
        call(inside.part)
    (only,) = inside.visits
    return only


def peak(recording: Recording | None) -> int:
    """The most bytes that were live, above what was there before."""
    assert recording is not None
    return max(stretch.peak for stretch in recording.stretches)


def flops(recording: Recording | None) -> int:
    """All floating-point operations."""
    assert recording is not None
    return sum(s.flops * s.repeat for s in recording.segments())
