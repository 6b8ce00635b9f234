"""The device context: above what others measured bare, by the room that kernels take, and none on Apple's chips."""

import pytest

from memplan.catalogue.gpu_names import find_card
from memplan.catalogue.gpus import Card, cards
from memplan.facts import GIB, MIB, Gpu
from memplan.simulator.device import KERNELS, context


@pytest.mark.parametrize(
    ("card", "measured"), [("RTX 3090", 256), ("RTX 6000 Ada", 426), ("B200", 612), ("RX 7900 XTX", 410)]
)
def test_a_card_that_was_measured_bare_has_room_for_kernels_too(card: str, measured: int) -> None:
    assert context(find_card(card).gpu()) == measured * MIB + KERNELS


@pytest.mark.parametrize(
    ("card", "like"), [("A100 80GB", "RTX 6000 Ada"), ("H100 PCIe", "B200"), ("RTX 5090", "B200"), ("T4", "RTX 3090")]
)
def test_a_card_that_nobody_measured_counts_as_another(card: str, like: str) -> None:
    assert context(find_card(card).gpu()) == context(find_card(like).gpu())


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_every_discrete_card_has_a_context_within_what_is_known(card: Card) -> None:
    gpu = card.gpu()
    assert context(gpu) == 0 if gpu.kind == "mps" else 400 * MIB < context(gpu) < 800 * MIB


def test_a_card_of_bare_memory_and_no_card_at_all() -> None:
    assert context(Gpu("12 GiB card", 12 * GIB, 12 * GIB)) == context(find_card("RTX 4090").gpu())
    assert context(None) == 0
