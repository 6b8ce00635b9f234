"""An op that is known gives what it gave: the same layouts, the same memory, in tensors of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.trace.known import LARGE, KnownOps
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.tracker import Tracker
from tests.pipelines import build, inputs
from tests.probes.rooms import flops, room

Op = Callable[[torch.Tensor], Any]
OPS: dict[str, Op] = {
    "a result of its own": lambda x: x + 1,
    "another dtype": lambda x: x.to(torch.float16),
    "the same memory": lambda x: x[1:, 2:].transpose(0, 1),
    "the same memory as another dtype": lambda x: x.view(torch.uint8),
    "in place": lambda x: x.add_(1),
    "several": lambda x: torch.max(x, dim=1),
    "several in the same memory": lambda x: x.split(2),
    "a layout of its own": lambda x: torch.empty_like(x.t()),
    "nothing given": lambda x: torch.ones(3, dtype=torch.int64),
}


def described(out: Any, given: torch.Tensor) -> list[Any]:
    """Layouts of what an op gave, and whether it is the tensor given or lies in its memory."""
    several = out if isinstance(out, tuple | list) else (out,)
    home = given.untyped_storage()._cdata

    def of(t: torch.Tensor) -> tuple[Any, ...]:
        storage = t.untyped_storage()
        layout = (t.shape, t.stride(), t.storage_offset(), t.dtype, t.device)
        return type(out).__name__, *layout, int(storage.nbytes()), t is given, storage._cdata == home

    return [of(t) for t in several]


def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ops that really run from now on."""
    ran: list[str] = []
    original = Tracker._run

    def counted(self: Tracker, func: Any, *args: Any) -> Any:
        ran.append(str(func))
        return original(self, func, *args)

    monkeypatch.setattr(Tracker, "_run", counted)
    return ran


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_known_op_gives_what_torch_gives(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, ledger, ran = fresh_mode(), Ledger(unit=1), runs(monkeypatch)
    with torch.no_grad(), mode:
        first, second = (torch.empty(8 + begin, 8)[begin:] for begin in (2, 4))  # they begin elsewhere
        expected = described(op(second), second)
        with Tracker(ledger, "cuda", KnownOps(mode)):
            op(first)
            count = len(ran)
            assert described(op(second), second) == expected
    assert len(ran) == count > 0


def test_what_is_made_again_is_counted_and_freed() -> None:
    mode, ledger = fresh_mode(), Ledger(unit=1)
    with torch.no_grad(), mode:
        x = torch.empty(1000)
        with Tracker(ledger, "cuda", KnownOps(mode)):
            made = [x + 1 for _ in range(3)]
            assert ledger.live == 3 * 4000
            made.pop()
            assert ledger.live == 2 * 4000
            del made
            assert ledger.live == 0


class Blocks(nn.Module):
    """Equal layers, one after the other."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(32, 4, 64, 0.0) for _ in range(count))).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_more_blocks_run_no_more_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, counts = runs(monkeypatch), []
    for blocks in (2, 6):
        ran.clear()
        with room(Blocks(blocks)) as inside:
            inside.part(torch.zeros(7, 1, 32))
        counts.append(len(ran))
        (visit,) = inside.visits
        assert flops(visit.recording) % blocks == 0
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_knowing_changes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.probes.fakes.twin import live_twin
    from memplan.probes.trace import dry_run

    def calls() -> list[Any]:
        trace = dry_run(live_twin(build("wan")), inputs("wan"))
        return [(c.component, c.base, c.segments, c.modules, c.ops, c.reserved, c.occupied) for c in trace.calls]

    short = calls()
    monkeypatch.setattr(KnownOps, "learn", lambda *args: None)
    assert calls() == short


# ---- the pipeline's own code -----------------------------------------------------------------------------------------
def test_the_pipelines_own_code_does_not_compute_what_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, ran = Ledger(unit=1), runs(monkeypatch)
    given = torch.full((LARGE + 1,), 2.0)
    with torch.no_grad(), Tracker(ledger, "cuda"):
        ledger.admit(given)
        ledger.doubt(given)
        steps = [given * scale for scale in (0.5, 0.25, 0.125)]
        assert ledger.live == 4 * given.nbytes
        assert all(map(ledger.doubts, steps))
    assert ran == ["aten.mul.Tensor"]
    assert steps[1].sum() == 0
    assert steps[1].stride() == (1,)


def test_what_it_knows_is_computed() -> None:
    ledger = Ledger(unit=1)
    with torch.no_grad(), Tracker(ledger, "cuda"):
        given = torch.full((LARGE + 1,), 2.0)
        assert [float((given * scale)[0]) for scale in (0.5, 0.25)] == [1.0, 0.5]


def test_small_tensors_are_computed() -> None:
    ledger, given = Ledger(unit=1), torch.full((LARGE,), 2.0)
    with torch.no_grad(), Tracker(ledger, "cuda"):
        ledger.admit(given)
        ledger.doubt(given)
        assert [float((given * scale)[0]) for scale in (0.5, 0.25)] == [1.0, 0.5]
