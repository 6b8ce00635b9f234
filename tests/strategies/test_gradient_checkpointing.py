from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from memplan.errors import BadInput
from memplan.strategies import GradientCheckpointing
from tests.accuracy.steps import denoiser, given, step_of
from tests.pipelines import build, inputs
from tests.some import some

BATCH = 2


class Block(nn.Module):
    """A foreign block with dropout, whose random numbers must be drawn again as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.runs = nn.Linear(8, 8), 0

    def forward(self, hidden: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        self.runs += 1
        return hidden + nn.functional.dropout(self.net(hidden).relu() * scale, 0.3, self.training)


class Backbone(nn.Module):
    """A model of no library, with its blocks in a list."""

    def __init__(self, blocks: int = 5) -> None:
        super().__init__()
        self.start, self.blocks = nn.Linear(8, 8), nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.start(hidden)
        for block in self.blocks:
            hidden = block(hidden, scale=0.5)
        return hidden


class Holder:
    """What a strategy takes for a pipeline."""

    def __init__(self, **parts: nn.Module) -> None:
        vars(self).update(parts)


def gradients(part: nn.Module, step: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """Those of one step from one seed."""
    part.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    step()
    return {name: weight.grad.clone() for name, weight in part.named_parameters() if weight.grad is not None}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(step: Callable[[], Any]) -> int:
    """Bytes that a forward keeps for its backward, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(kept.values())


def attributes(part: nn.Module) -> Iterator[tuple[str, set[str]]]:
    for path, module in part.named_modules():
        yield path, {f"{name}={type(value)}" for name, value in vars(module).items() if name != "runs"}


@pytest.mark.slow
@pytest.mark.parametrize("family", some(("flux", "sdxl", "wan", "sd3", "ltx"), "flux", "sdxl"))
@pytest.mark.parametrize("interval", [1, 2, 4])
def test_gradients_of_a_denoiser_are_those_without(family: str, interval: int) -> None:
    pipe = build(family)
    name = denoiser(pipe)
    part, arguments = getattr(pipe, name).train(), given(pipe, inputs(family), BATCH)
    step, before = step_of(part, arguments), dict(attributes(getattr(pipe, name)))
    plain = gradients(part, step)
    undo = GradientCheckpointing(name, interval).apply(pipe, "cpu")
    assert same(gradients(part, step), plain)
    undo()
    assert dict(attributes(part)) == before
    assert same(gradients(part, step), plain)


@pytest.mark.parametrize("interval", [1, 2, 3, 7])
def test_a_foreign_backbone_is_checkpointed_by_its_list(interval: int) -> None:
    part = Backbone()
    hidden = torch.randn(4, 8)

    def step() -> None:
        part(hidden).square().mean().backward()

    plain = gradients(part, step)
    undo = GradientCheckpointing("net", interval).apply(Holder(net=part), "cpu")
    for block in part.blocks:
        block.runs = 0  # type: ignore[assignment]
    assert same(gradients(part, step), plain)
    assert [block.runs for block in part.blocks] == [1 + (number % interval == 0) for number in range(5)]
    undo()
    assert not any("forward" in vars(module) for module in part.modules())
    assert same(gradients(part, step), plain)


def test_without_gradients_nothing_is_computed_again() -> None:
    part = Backbone().eval()
    hidden = torch.randn(4, 8)
    with torch.no_grad():
        plain = part(hidden)
        undo = GradientCheckpointing("net").apply(Holder(net=part), "cpu")
        assert torch.equal(part(hidden), plain)
    assert all(block.runs == 2 for block in part.blocks)
    undo()


def test_a_model_of_transformers_is_checkpointed_by_its_layers() -> None:
    config = transformers.CLIPTextConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2
    )
    part = transformers.CLIPTextModel(config).train()
    tokens = torch.arange(20).reshape(2, 10)

    def forward() -> torch.Tensor:
        return part(input_ids=tokens).last_hidden_state.square().mean()

    plain, before = gradients(part, lambda: forward().backward()), dict(attributes(part))
    kept = {}
    for interval in (1, 2, 4):
        undo = GradientCheckpointing("text_encoder", interval).apply(Holder(text_encoder=part), "cpu")
        assert same(gradients(part, lambda: forward().backward()), plain)
        kept[interval] = saved(forward)
        undo()
        assert dict(attributes(part)) == before
    assert kept[1] < kept[2] < kept[4] < saved(forward)


def test_a_model_without_blocks_is_refused_in_a_sentence() -> None:
    with pytest.raises(BadInput, match="Sequential has no list of blocks"):
        GradientCheckpointing("net").apply(Holder(net=nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))), "cpu")


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="interval=0 is no number of blocks"):
        GradientCheckpointing("net", 0).apply(Holder(net=Backbone()), "cpu")


@pytest.mark.parametrize("family", ["flux"])
def test_what_is_checkpointed_already_is_refused(family: str) -> None:
    pipe = build(family)
    pipe.transformer.enable_gradient_checkpointing()
    with pytest.raises(BadInput, match="has gradient checkpointing already"):
        GradientCheckpointing("transformer").apply(pipe, "cpu")
