import pytest
import torch

from tests.accuracy.cpu import SMALL, WITHOUT_A_DECODE, Pair, lines, pairs
from tests.accuracy.measured import peak_of
from tests.pipelines import EVERY_FAMILY
from tests.some import some

IN_BFLOAT16 = ("transformer",)
"""In bfloat16 oneDNN holds float32 copies where the processor lacks the instructions, and float32 sums by thread where
it has them; no plan depends on either, so that only a component without convolutions is held to its peak there."""


@pytest.mark.slow
@pytest.mark.parametrize("family", some(EVERY_FAMILY, "flux", "sdxl", "cogvideox"))
def test_a_dry_run_peaks_where_the_real_run_does(family: str) -> None:
    found = pairs(family)
    assert len(found) >= 3
    for pair in found:
        assert abs(pair.error) <= pair.tolerance, pair


@pytest.mark.wide
def test_half_precision_as_well() -> None:
    found = [pair for pair in pairs("flux", torch.bfloat16, **WITHOUT_A_DECODE) if pair.component in IN_BFLOAT16]
    assert found
    for pair in found:
        assert abs(pair.error) <= pair.tolerance, pair


def test_peak_of_counts_what_is_freed_meanwhile() -> None:
    def work() -> torch.Tensor:
        first = torch.zeros(1024)
        second = first + 1
        del first
        return second + 1

    result, peak = peak_of(work)
    assert 2 * 4096 <= peak < 2 * 4096 + SMALL
    assert result.sum() == 2048


def test_a_call_that_was_not_traced_is_far_off() -> None:
    assert Pair("flux", torch.float32, "vae", "encode", traced=0, measured=100).error == -1


def test_the_table_names_each_call() -> None:
    head, *rest = lines(["sd15"], size="tiny")
    assert head.split() == ["pipeline", "dtype", "call", "measured", "MiB", "traced", "MiB", "error"]
    assert [line.split()[2] for line in rest[:3]] == ["text_encoder.forward", "unet.forward", "vae.decode"]
