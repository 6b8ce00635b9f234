"""Names as people, shops and drivers write them find the card that they mean, or the words to go on with."""

import pytest

from memplan.catalogue.gpu_names import find_card, namesakes, resembling
from memplan.errors import BadInput
from memplan.facts import GIB, MIB


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("RTX 4070", "NVIDIA GeForce RTX 4070"),
        ("rtx4070ti", "NVIDIA GeForce RTX 4070 Ti"),
        ("4070TiSuper", "NVIDIA GeForce RTX 4070 Ti SUPER"),
        ("4070 laptop", "NVIDIA GeForce RTX 4070 Laptop"),
        ("RTX 4070 Mobile", "NVIDIA GeForce RTX 4070 Laptop"),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", "NVIDIA GeForce RTX 4070 Laptop"),
        ("4090D", "NVIDIA GeForce RTX 4090 D"),
        ("RTX 3080", "NVIDIA GeForce RTX 3080 10 GB"),
        ("RTX 3080 12GB", "NVIDIA GeForce RTX 3080 12 GB"),
        ("H100 80GB", "NVIDIA H100 SXM"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("A100 80 GB", "NVIDIA A100 SXM 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "NVIDIA A100 PCIe 40 GB"),
        ("a10g", "NVIDIA A10G"),
        ("l40s", "NVIDIA L40S"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "NVIDIA RTX PRO 6000 Max-Q Workstation"),
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada"),
        ("7900xtx", "AMD Radeon RX 7900 XTX"),
        ("Intel(R) Arc(TM) A770 Graphics", "Intel Arc A770 16 GB"),
        ("m2 max 64gb", "Apple M2 Max 64 GB"),
    ],
)
def test_a_name_as_people_and_drivers_write_it(said: str, meant: str) -> None:
    assert find_card(said).name == meant


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("A100", "NVIDIA A100 PCIe 40 GB"),
        ("4060 Ti", "NVIDIA GeForce RTX 4060 Ti 16 GB"),
        ("M2 Max", "Apple M2 Max 96 GB"),
    ],
)
def test_an_ambiguous_name_lists_the_choices(said: str, choice: str) -> None:
    with pytest.raises(BadInput, match=choice):
        find_card(said)


def test_the_memory_decides_between_cards_of_one_name() -> None:
    assert find_card("4060 Ti", vram=16).memory == 16 * GIB
    assert find_card("A100", vram=40).name == "NVIDIA A100 SXM 40 GB"
    assert find_card("M2 Max", ram=96).memory == 96 * GIB


def test_host_memory_does_not_decide_between_cards_with_memory_of_their_own() -> None:
    with pytest.raises(BadInput, match="any of 4"):
        find_card("A100", ram=80)


@pytest.mark.parametrize(
    ("said", "near"),
    [("RTX 4075", "NVIDIA GeForce RTX 4070"), ("RTX 6000", "NVIDIA RTX 6000 Ada"), ("MI300", "MI300X")],
)
def test_a_near_miss_is_told_the_near_names(said: str, near: str) -> None:
    with pytest.raises(BadInput, match=near):
        find_card(said)


@pytest.mark.parametrize("said", ["", "???", "Voodoo 2", "RTX", "RTX 4070 16GB"])
def test_an_unknown_card_is_told_how_to_go_on(said: str) -> None:
    with pytest.raises(BadInput, match=r"Target\(vram=12\)"):
        find_card(said)


@pytest.mark.parametrize("said", ["GTX 1080", "GTX 1080 Ti", "Voodoo 2"])
def test_a_card_that_is_like_none_is_not_taken_for_another(said: str) -> None:
    with pytest.raises(BadInput) as told:
        find_card(said)
    assert "Do you mean" not in str(told.value)


@pytest.mark.parametrize(
    ("said", "sizes", "others"),
    [
        ("RTX 3080", {}, ("NVIDIA GeForce RTX 3080 12 GB",)),
        ("RTX 3080", {"vram": 12}, ()),
        ("RTX 3080", {"vram": 9}, ("NVIDIA GeForce RTX 3080 12 GB",)),
        ("RTX 3080 10 GB", {}, ()),
        ("H100", {}, ("NVIDIA H100 PCIe", "NVIDIA H100 NVL")),
        ("RTX 4070", {}, ()),
    ],
)
def test_the_cards_that_a_name_could_mean_too_are_told(
    said: str, sizes: dict[str, float], others: tuple[str, ...]
) -> None:
    assert namesakes(said, **sizes) == others


def test_a_driver_name_takes_the_size_nearest_to_what_the_driver_reports() -> None:
    found = resembling("NVIDIA GeForce RTX 5060 Ti", 16311 * MIB)
    assert found
    assert found.name.endswith("16 GB")
    assert resembling("NVIDIA Graphics Device", 16311 * MIB) is None
