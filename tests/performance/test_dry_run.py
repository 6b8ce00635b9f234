import pytest

from tests.performance import curves
from tests.performance.beside_torch import Measured, arguments, by_memplan, by_torch, transformer


def beside(blocks: int, side: int) -> tuple[Measured, Measured]:
    module = transformer(blocks)
    return by_memplan(module, arguments(module, side)), by_torch(module, arguments(module, side))


@pytest.mark.slow
def test_a_forward_peaks_where_torchs_own_tracker_finds_it() -> None:
    ours, theirs = beside(blocks=1, side=512)
    assert ours.peak > 64 * 2**20
    assert ours.peak == pytest.approx(theirs.peak, rel=0.01)


@pytest.mark.wide
def test_it_takes_no_longer_than_torchs_own_tracker_and_half_as_much_again() -> None:
    beside(blocks=1, side=512)  # fills caches of torch
    ours, theirs = beside(blocks=2, side=1024)
    assert ours.seconds < 1.5 * theirs.seconds


@pytest.mark.wide
def test_a_larger_picture_takes_no_longer() -> None:
    curves.timed(*curves.blocks(1))  # fills caches of torch
    (small, _), (large, _) = (curves.timed(*curves.picture(side)) for side in (512, 1024))
    assert large < 3 * small
