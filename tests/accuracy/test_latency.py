"""Published seconds: those of one dry run in every run of the tests, all of them where there is time."""

import re
from dataclasses import replace
from statistics import median

import pytest

from memplan.facts import MATMUL
from tests.accuracy.latency import LARGE, PAGE, Timed, all_timed, latencies, page, pairs, rank_correlation, summary

ONE_CALL = ("S1-01-peak", "S1-10-peak", "S1-11-peak")
"""FLUX.1-dev as it is, quantized and offloaded: one dry run."""
ON_THE_CPU = ("S6-fx06-peak", "S6-fx13-peak", "S6-fx22-peak", "S6-cx07-peak", "S6-cx26-peak")
"""Their library multiplied small matrices on the CPU, which today's does not: see SECONDS.md."""
ROW = re.compile(r"^\| (S\S+) \|.*\| ([\d.]+) \| [-+][\d.]+% \|$", re.MULTILINE)


def told(*factors: float) -> list[Timed]:
    """Predictions that are off by these factors."""
    return [Timed(latency, latency.seconds * f) for latency, f in zip(latencies(), factors, strict=False)]


@pytest.mark.slow
def test_seconds_of_one_model_on_one_card() -> None:
    timed = list(all_timed(ids=ONE_CALL))
    assert len(timed) == len(ONE_CALL)
    assert max(abs(t.error) for t in timed) <= LARGE, list(summary(timed))
    assert rank_correlation(timed) >= 0.9


@pytest.mark.wide
def test_all_seconds() -> None:
    timed = list(all_timed())
    plain = [t for t in timed if not t.latency.row.plan]
    assert median(abs(t.error) for t in plain) <= 0.10, list(summary(timed))
    assert median(abs(t.error) for t in timed) <= 0.15
    uncompiled = [t for t in timed if "compile:" not in t.latency.row.plan and t.latency.row.id not in ON_THE_CPU]
    assert median(pair.error for pair in pairs(uncompiled)) <= 0.15
    assert median(pair.error for pair in pairs(timed)) <= 0.15
    assert rank_correlation(timed) >= 0.9


@pytest.mark.wide
def test_seconds_of_compiled_components() -> None:
    ids = [latency.row.id for latency in latencies() if "compile:" in latency.row.plan]
    off = [abs(timed.error) for timed in all_timed(ids=ids)]
    assert len(off) == 25
    assert median(off) <= 0.10
    assert max(off) <= 0.16


def test_each_row_is_once_on_the_page_and_the_rest_follows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = {row: float(figure) for row, figure in ROW.findall(text)}
    assert list(shown) == [latency.row.id for latency in latencies()]
    assert page([Timed(latency, shown[latency.row.id]) for latency in latencies()]) == text


def test_a_ratio_is_off_by_what_sets_two_errors_apart() -> None:
    same_place = told(1.2, 1.2), told(1.1, 2.2)
    errors = [pair.error for timed in same_place for pair in pairs(timed)]
    assert errors == pytest.approx([0, 1.0])


def test_the_order_of_ranks() -> None:
    rising = sorted(told(*[1.0] * 20), key=lambda t: t.latency.seconds)
    assert rank_correlation(rising) == pytest.approx(1)
    falling = [replace(t, predicted=-t.predicted) for t in rising]
    assert rank_correlation(falling) == pytest.approx(-1)


def test_a_row_in_tf32_multiplies_on_tensor_cores() -> None:
    by_id = {latency.row.id: latency for latency in latencies()}
    fast, slow = (by_id[name].rates.flops(MATMUL, "float32") for name in ("S9-sdxl07", "S3-01"))
    assert fast > 4 * slow
