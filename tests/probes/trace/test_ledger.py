import gc
import weakref

import pytest
import torch

from memplan.facts import Ops
from memplan.probes.trace.ledger import Ledger, rounded

ONCE = Ops("matmul", "float32", 1, 3, 4)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(unit=512)
    ledger.begin()
    return ledger


def bytes_of(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.uint8)


@pytest.mark.parametrize(("nbytes", "taken"), [(0, 0), (1, 512), (512, 512), (513, 1024)])
def test_sizes_are_rounded_up_to_whole_units(nbytes: int, taken: int) -> None:
    assert rounded(nbytes) == taken


def test_unit_one_rounds_nothing() -> None:
    assert rounded(513, unit=1) == 513


# ---- storages --------------------------------------------------------------------------------------------------------
def test_a_storage_counts_from_birth_to_death(ledger: Ledger) -> None:
    tensor = bytes_of(600)
    ledger.admit(tensor)
    assert ledger.live == 1024
    del tensor
    assert ledger.live == 0


def test_views_count_once_and_keep_their_storage(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    view = tensor[:10]
    for t in (tensor, view, tensor.view(2, 512)):
        ledger.admit(t)
    assert ledger.live == 1024
    del tensor, t
    assert ledger.live == 1024
    del view
    assert ledger.live == 0


def test_no_tensor_is_kept_alive(ledger: Ledger) -> None:
    tensor = bytes_of(10)
    ledger.admit(tensor)
    gone = weakref.ref(tensor)
    del tensor
    gc.collect()
    assert gone() is None


def test_what_stands_for_other_memory_is_known_but_not_counted(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    ledger.admit(tensor, counted=False)
    assert ledger.knows(tensor)
    assert ledger.live == 0
    del tensor
    assert ledger.live == 0


def test_a_weight_counts_only_when_it_dies(ledger: Ledger) -> None:
    weight = bytes_of(1024)
    ledger.own(weight)
    assert ledger.live == 0
    copy = bytes_of(2048)  # the pipeline casts the component: the copy comes, the original goes
    ledger.admit(copy)
    del weight
    assert ledger.live == 1024


# ---- peaks -----------------------------------------------------------------------------------------------------------
def test_the_peak_is_of_what_is_live_and_the_workspace(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    ledger.admit(tensor)
    ledger.note("small", workspace=100)
    ledger.note("large", ONCE, workspace=200)
    ledger.note("small", ONCE, workspace=100)
    (stretch,) = ledger.recording.stretches
    (segment,) = ledger.recording.segments()
    assert (stretch.live, stretch.peak) == (0, 1224)
    assert segment.work == (Ops("matmul", "float32", 2, 6, 8),)
    assert list(ledger.recording.ops)[stretch.op] == "large"


def test_a_recording_starts_at_its_base(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    ledger.admit(tensor)
    outer = ledger.begin()
    ledger.note("op", workspace=10)
    assert ledger.recording.base == 1024
    assert ledger.recording.stretches[0].peak == 10
    inner = ledger.end(outer)
    assert ledger.recording is outer
    assert inner.base == tensor.nbytes


# ---- segments --------------------------------------------------------------------------------------------------------
def shape(ledger: Ledger) -> list[tuple[list[str], list[str]]]:
    """Modules that each segment enters and leaves."""
    names = list(ledger.recording.modules)
    return [([names[i] for i in s.enters], [names[i] for i in s.leaves]) for s in ledger.recording.stretches]


def test_modules_that_begin_together_share_a_segment(ledger: Ledger) -> None:
    ledger.enter("a")
    ledger.enter("a.b")
    ledger.note("op", ONCE)
    ledger.leave("a.b")
    ledger.leave("a")
    assert shape(ledger) == [(["a", "a.b"], ["a.b", "a"])]


def test_an_op_between_two_modules_parts_them(ledger: Ledger) -> None:
    ledger.note("op", ONCE)
    ledger.enter("a")
    ledger.note("op", ONCE)
    ledger.leave("a")
    ledger.resume()
    ledger.note("op", ONCE)
    ledger.enter("b")
    assert shape(ledger) == [([], []), (["a"], ["a"]), ([], []), (["b"], [])]


def test_resume_does_nothing_while_a_segment_is_open(ledger: Ledger) -> None:
    ledger.enter("a")
    ledger.resume()
    assert len(shape(ledger)) == 1


def test_a_segment_knows_what_is_live_when_it_begins(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    ledger.admit(tensor)
    ledger.note("op", ONCE)
    ledger.enter("a")
    assert [s.live for s in ledger.recording.stretches] == [0, 1024]
    assert [s.live for s in ledger.recording.segments()] == [0, 1024]


# ---- the allocator ---------------------------------------------------------------------------------------------------
def test_the_pool_keeps_what_is_freed(ledger: Ledger) -> None:
    tensor = bytes_of(3 * 2**20)
    ledger.admit(tensor)
    del tensor
    assert ledger.live == 0
    assert ledger.pool.reserved == 20 * 2**20


def test_what_is_done_aside_leaves_the_pool_as_it_was(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    ledger.admit(tensor)
    with ledger.aside(ledger.pools()):
        other = bytes_of(100 * 2**20)
        ledger.admit(other)
        assert ledger.pool.reserved > 100 * 2**20
        del other
    assert ledger.pool.reserved == 2 * 2**20
    del tensor
    assert ledger.pool.occupied == 0


def test_what_dies_aside_is_free_afterwards(ledger: Ledger) -> None:
    tensor = bytes_of(1024)
    ledger.admit(tensor)
    with ledger.aside(ledger.pools()):
        del tensor
    assert (ledger.live, ledger.pool.occupied) == (0, 0)
