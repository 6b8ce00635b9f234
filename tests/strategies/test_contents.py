"""What is told of weights by their bytes: whatever they are laid out like, and whatever they are of."""

from importlib import import_module
from typing import Any

import pytest
import torch

contents: Any = import_module("memplan.strategies.live.contents")
visitors: Any = import_module("memplan.strategies.live.visitors")

WEIGHTS = {
    "odd": torch.arange(35, dtype=torch.bfloat16).reshape(5, 7),
    "channels_last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "with gaps": torch.rand(6, 8)[:, ::2],
    "within another": torch.rand(100, dtype=torch.float16)[3:40],
    "float8": torch.rand(64, 64).to(torch.float8_e4m3fn),
    "bool": torch.zeros(9, dtype=torch.bool),
    "scalar": torch.tensor(3.0),
}


def summed(tensor: torch.Tensor) -> int:
    into = torch.empty(1, dtype=torch.int64)
    contents.total(tensor, into[0])
    return int(into)


@pytest.mark.parametrize("name", WEIGHTS)
def test_one_element_changes_the_sum_and_a_copy_has_the_same(name: str) -> None:
    weight = WEIGHTS[name].clone(memory_format=torch.preserve_format)
    before = summed(weight)
    assert summed(weight.clone(memory_format=torch.preserve_format)) == before
    last = tuple(size - 1 for size in weight.shape)
    weight[last] = 1 if weight.dtype == torch.bool else 0.125
    assert summed(weight) != before


def test_an_empty_tensor_has_a_sum_too() -> None:
    assert summed(torch.empty(0, 4)) == 0


@pytest.mark.parametrize("name", WEIGHTS)
def test_samples_follow_the_whole_weight(name: str) -> None:
    weight = WEIGHTS[name].clone(memory_format=torch.preserve_format)
    before = contents.sampled([weight])
    assert contents.sampled([weight.clone(memory_format=torch.preserve_format)]) == before
    weight.fill_(1)
    assert contents.sampled([weight]) != before


def test_samples_are_spread_over_rows_and_columns() -> None:
    weight = torch.zeros(64, 4096)
    before = contents.sampled([weight])
    changed = 0
    for part in (*weight.split(8, 0), *weight.split(512, 1)):
        part.fill_(1)
        changed += contents.sampled([weight]) != before
        part.fill_(0)
    assert changed >= 8
    assert contents.sampled([torch.empty(8, device="meta")]) == contents.sampled([])


def test_a_quantized_weight_that_was_put_in_place_of_a_lent_one_goes_home() -> None:
    class Quantized(torch.nn.Parameter):
        """Of a type that is swapped whole."""

    table = {"weight": Quantized(torch.ones(2))}
    back = visitors._swapped(table, "weight", torch.device("meta"))
    assert table["weight"].device.type == "meta"
    gone: Any = Quantized(torch.ones(3, device="meta"))
    gone.to = lambda device: Quantized(torch.zeros(3, device=device))
    table["weight"] = gone
    back()
    assert table["weight"].device.type == "cpu"
    assert table["weight"].shape == (3,)
