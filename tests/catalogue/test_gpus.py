"""The catalogue of GPUs: its figures agree with each other and with what the makers publish."""

from urllib.parse import urlparse

import pytest

from memplan.catalogue.gpu_names import find_card, resembling
from memplan.catalogue.gpus import Card, cards, pcie_rate
from memplan.facts import GIB, ITEM_SIZE, MIB

EACH = pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
NVIDIA = pytest.mark.parametrize("card", [c for c in cards() if c.capability], ids=lambda card: card.name)
VOLTA = (7, 0)
FP8 = (8, 9)


# ---- every card ------------------------------------------------------------------------------------------------------
def test_there_are_many_cards_and_no_two_share_a_name() -> None:
    names = [card.name for card in cards()]
    assert len(names) == len(set(names)) >= 60


@EACH
def test_memory_bandwidth_and_rates_are_possible(card: Card) -> None:
    assert GIB < card.free <= card.total <= card.memory * 1.01
    assert card.total > card.memory * 0.9
    assert 50e9 < card.bandwidth < 10e12
    assert all(1e12 < rate < 10e15 for _, rate in card.rates)


@EACH
def test_rates_are_of_known_dtypes_and_never_fall_with_precision(card: Card) -> None:
    rates = dict(card.rates)
    assert set(rates) <= {*ITEM_SIZE, "tf32", "float8_e4m3fnuz"}
    assert rates["float16"] >= rates["float32"]
    assert rates.get("bfloat16", rates["float32"]) >= rates["float32"]


@EACH
def test_sources_are_public_pages(card: Card) -> None:
    assert all(urlparse(page).scheme == "https" and urlparse(page).path for page in card.sources)


@EACH
def test_kind_link_and_unified_memory_agree(card: Card) -> None:
    assert card.kind in {"cuda", "rocm", "xpu", "mps"}
    assert (card.capability is not None) == (card.kind == "cuda")
    assert card.unified == (card.pcie is None)
    assert (card.gpu().link is None) == card.unified


@EACH
def test_amds_cards_name_their_target_and_apples_what_they_lack(card: Card) -> None:
    assert card.arch.startswith("gfx") == (card.kind == "rocm")
    assert card.lacks == (("float64", "float8_e4m3fn", "float8_e5m2") if card.kind == "mps" else ())
    assert (card.gpu().arch, card.gpu().lacks) == (card.arch, card.lacks)


@EACH
def test_its_own_name_finds_a_card(card: Card) -> None:
    assert find_card(card.name, vram=card.memory / GIB).memory == card.memory
    assert resembling(card.name, card.total) == card


# ---- NVIDIA ----------------------------------------------------------------------------------------------------------
@NVIDIA
def test_fp8_and_bf16_are_where_the_hardware_has_them(card: Card) -> None:
    rates = dict(card.rates)
    assert card.capability is not None
    assert ("float8_e4m3fn" in rates) == (card.capability >= FP8)
    assert ("bfloat16" in rates) == ("tf32" in rates) == (card.capability >= (8, 0))


@NVIDIA
def test_narrower_types_are_as_fast_or_faster(card: Card) -> None:
    rates = dict(card.rates)
    if card.capability == VOLTA:
        del rates["int8"]  # its tensor cores know float16 alone
    order = [rates[d] for d in ("float32", "tf32", "float16", "float8_e4m3fn", "int8") if d in rates]
    assert order == sorted(order)
    assert rates.get("bfloat16", rates["float16"]) == rates["float16"]


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [  # dense, float32 accumulation: the makers' figures, halved where they are for sparse matrices
        ("RTX 5090", "bfloat16", 209.5),
        ("RTX 5090", "float8_e4m3fn", 419),
        ("RTX 4090", "float16", 165.2),
        ("RTX 4090", "float8_e4m3fn", 330.3),
        ("RTX 4090", "int8", 660.6),
        ("RTX 3090", "bfloat16", 71),
        ("RTX 3090", "int8", 284),
        ("RTX 2080 Ti", "float16", 53.8),
        ("RTX PRO 6000", "bfloat16", 503.8),
        ("RTX 6000 Ada", "float16", 364.2),
        ("RTX A6000", "bfloat16", 154.8),
        ("H200", "bfloat16", 989.4),
        ("H100 PCIe", "bfloat16", 756),
        ("A100 80GB", "tf32", 156),
        ("A100 80GB", "bfloat16", 312),
        ("A10", "float16", 125),
        ("L40S", "float8_e4m3fn", 733),
        ("L4", "float16", 121),
        ("T4", "float16", 65),
        ("T4", "int8", 130),
        ("V100 SXM2 16GB", "float16", 125),
        ("B200", "bfloat16", 2250),
        ("MI300X", "bfloat16", 1307.4),
        ("RX 7900 XTX", "float16", 122.8),
        ("RX 9070 XT", "float16", 194.6),
        ("Arc B580", "int8", 233),
    ],
)
def test_rates_are_the_published_ones(name: str, dtype: str, tflops: float) -> None:
    assert dict(find_card(name).rates)[dtype] == pytest.approx(tflops * 1e12, rel=0.01)


def test_what_the_driver_reports_is_less_than_the_nominal_size() -> None:
    card = find_card("RTX 4090")
    assert (card.memory, card.total) == (24 * GIB, 24564 * MIB)


@pytest.mark.parametrize(
    ("generation", "lanes", "rate"), [(4, 16, 31.5e9), (3, 16, 15.75e9), (1, 16, 4e9), (5, 8, 31.5e9)]
)
def test_the_rate_of_a_link(generation: int, lanes: int, rate: float) -> None:
    assert pcie_rate(generation, lanes) == pytest.approx(rate, rel=0.001)


def test_an_unknown_generation_has_no_rate() -> None:
    assert pcie_rate(9, 16) is None
