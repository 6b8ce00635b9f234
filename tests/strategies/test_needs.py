"""What techniques need of a machine: which cards are refused, and the words for them."""

from dataclasses import replace

import pytest

from memplan.catalogue.gpu_names import find_card
from memplan.catalogue.gpus import cards
from memplan.faces.report import help
from memplan.facts import ASSUMED_CAPABILITY, Gpu
from memplan.strategies import Bnb4bit, Fp8Dynamic, Int8WeightOnly, ModelOffload
from tests.faces import small

NEEDS = replace(Fp8Dynamic.needs, package="torchao", version="0.16")
PLAIN = small.machine(8, 32)


def lacking(gpu: Gpu, version: str = "0.18") -> str | None:
    """What a machine with this card lacks for fp8_dynamic."""
    return NEEDS.lacking(replace(PLAIN, gpu=gpu, packages=(("torchao", version),)), "fp8_dynamic")


def test_torchao_computes_in_float8_on_few_cards_of_amd() -> None:
    fit = {card.arch for card in cards() if card.kind == "rocm" and lacking(card.gpu()) is None}
    assert fit == {"gfx942", "gfx950"}
    assert lacking(find_card("RX 7900 XTX").gpu()) == (
        "fp8_dynamic needs one of gfx940, gfx941, gfx942, gfx950, and AMD Radeon RX 7900 XTX has gfx1100"
    )


def test_a_card_of_cuda_must_be_new_enough() -> None:
    assert lacking(find_card("RTX 4070").gpu()) is None
    assert lacking(find_card("RTX 3090").gpu()) == (
        "fp8_dynamic needs compute capability 8.9, and NVIDIA GeForce RTX 3090 has 8.6"
    )


def test_a_card_of_unknown_capability_is_taken_for_one_of_today() -> None:
    unknown = Gpu("8 GiB card", 8, 8)
    assert lacking(unknown) is None
    newer = replace(NEEDS, capability=(ASSUMED_CAPABILITY[0] + 1, 0))
    there = replace(PLAIN, gpu=unknown, packages=(("torchao", "0.18"),))
    assert newer.lacking(there, "x") == "x needs compute capability 9.0, and 8 GiB card has 8.9"


def test_what_is_taken_for_granted_is_said() -> None:
    known = small.facts()
    (said,) = set(replace(known, machine=replace(PLAIN, gpu=Gpu("8 GiB card", 8, 8))).assumptions) - {"one assumption"}
    assert said == "compute capability 8.9, which some techniques need: of the 8 GiB card only the memory is known"
    assert known.assumptions == ("one assumption",)


@pytest.mark.parametrize("version", ["0.15", ""])
def test_a_package_that_is_old_or_absent_comes_first(version: str) -> None:
    there = replace(PLAIN, gpu=find_card("RTX 3090").gpu(), packages=(("torchao", version),) if version else ())
    assert "torchao" in str(NEEDS.lacking(there, "fp8_dynamic"))


def test_the_help_says_what_is_needed() -> None:
    assert Fp8Dynamic.needed() == (
        "torchao 0.16 or newer, and CUDA (compute capability 8.9), ROCm (one of gfx940, gfx941, gfx942, gfx950) or XPU"
    )
    assert Int8WeightOnly.needed() == "torchao 0.16 or newer, and CUDA, ROCm, XPU or a CPU"
    assert "Needs torchao 0.16 or newer, and CUDA (compute capability 8.9)" in help.page(Fp8Dynamic)
    assert "Needs bitsandbytes 0.48 or newer" in help.page(Bnb4bit)
    assert "Needs" not in help.page(ModelOffload)
