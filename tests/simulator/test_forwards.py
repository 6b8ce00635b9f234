"""Calls with parts skipped, and what caches keep, on figures that a reader can add up."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from memplan.facts import Call, Ops, Result, Segment
from memplan.run import Cached, Kept, Shortened
from memplan.simulator.forwards import Forwards, kept, shortened

WORK = (Ops("matmul", "float32", 4, 40, 80),)
MODULES = ("", "blocks.0", "blocks.0.attn", "blocks.1", "out")


def segment(enters: tuple[int, ...], leaves: tuple[int, ...], live: int, peak: int) -> Segment:
    return Segment(enters, leaves, live, peak, 0, WORK)


CALL = Call(
    "net", "forward", "denoising", 0, MODULES, ("aten.mm",),
    (
        segment((0,), (), 0, 10),
        segment((1, 2), (2,), 10, 50),
        segment((), (1,), 20, 60),
        segment((3,), (3,), 10, 70),
        segment((4,), (4, 0), 10, 30),
    ),
    results=(
        (),
        (Result((2, 3, 4), "float32", 96),),
        (Result((2, 3, 4), "bfloat16", 200), Result((2, 3), "bfloat16", 0)),
        (),
        (),
    ),
)  # fmt: skip


def entered(call: Call) -> list[str]:
    return [call.modules[number] for s in call.segments for number in s.enters]


def left(call: Call) -> list[str]:
    return [call.modules[number] for s in call.segments for number in s.leaves]


def test_what_is_skipped_does_nothing_and_is_not_entered() -> None:
    short = shortened(CALL, ("blocks.0.attn", "blocks.1"))
    assert entered(short) == ["", "blocks.0", "out"]
    assert left(short) == ["blocks.0", "out", ""]
    assert (short.flops, CALL.flops) == (3 * 40, 5 * 40)
    assert (short.peak_segment.peak, CALL.peak_segment.peak) == (60, 70)


def test_modules_around_what_is_skipped_are_entered_and_left_all_the_same() -> None:
    short = shortened(CALL, ("blocks.0",))
    assert entered(short) == ["", "blocks.1", "out"]
    assert left(short) == ["blocks.1", "out", ""]
    assert shortened(CALL, ("out",)).segments[-1].leaves == (0,)


def test_half_a_batch_does_half() -> None:
    assert shortened(CALL, (), halved=True).flops == CALL.flops // 2
    assert shortened(CALL, (), halved=True).activations == CALL.activations
    assert shortened(CALL, ()) is CALL


def test_bytes_of_what_is_kept() -> None:
    assert kept(CALL, (Kept("blocks.0"),)) == 96
    assert kept(CALL, (Kept("blocks.0", dtype="bfloat16"),)) == 48
    assert kept(CALL, (Kept("blocks.0.attn"),)) == 200  # all of the storage that both are views of
    assert kept(CALL, (Kept("blocks.0.attn", anew=True),)) == 2 * (24 + 6)
    assert kept(CALL, (Kept("blocks.0.attn", (1,), anew=True, dtype="float32"),)) == 4 * 6
    assert kept(CALL, (Kept("blocks.0", anew=True, parts=2, dtype="complex64"),) * 2) == 2 * 12 * 8
    assert kept(CALL, (Kept("nowhere"),)) == 0


def test_forwards_come_in_turn_and_contexts_are_kept_side_by_side() -> None:
    forwards = Forwards(run_of(
        Shortened(kept=(Kept("blocks.0"),), context="cond"),
        Shortened(kept=(Kept("blocks.0"),), context="uncond"),
        Shortened(("blocks.1",), (Kept("blocks.0"),), "cond"),
        Shortened(("blocks.1",), (Kept("blocks.0"),), "uncond"),
    ))  # fmt: skip
    short = shortened(CALL, ("blocks.1",), halved=False)
    other = replace(CALL, component="vae", method="decode")
    assert list(forwards.of(CALL, 4)) == [(1, CALL, 96), (1, CALL, 192), (2, short, 192)]
    assert list(forwards.of(other, 1)) == [(1, other, 192)]  # nothing is freed before the end
    assert list(forwards.of(CALL, 1)) == [(1, CALL, 192)]  # one that nobody foresaw is computed


def run_of(*forwards: Shortened) -> Any:
    return SimpleNamespace(caches={"net": Cached(forwards)})
