"""What a component made by hand keeps in its twin, and what has no twin."""

import threading
from typing import Any

import pytest
import torch

from memplan.errors import Unsupported
from memplan.probes.fakes.twin import live_twin
from tests.pipelines import build


class OneWeight(torch.nn.Module):
    """A component with one layer, to hang things on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


def with_part(part: torch.nn.Module) -> Any:
    """A pipeline whose text encoder is `part`."""
    pipe = build("flux")
    pipe.__dict__["text_encoder"] = part
    return pipe


def test_hooks_of_torch_itself_belong_to_the_layer() -> None:
    part = OneWeight()
    torch.nn.utils.weight_norm(part.layer)
    twin = live_twin(with_part(part))
    with twin.mode:
        assert twin.pipe.text_encoder(torch.zeros(2, 4)).shape == (2, 4)
    assert len(twin.pipe.text_encoder.layer._forward_pre_hooks) == 1


def test_constants_are_copied_without_their_history() -> None:
    part = OneWeight()
    part.scale = part.layer.weight.sum() * 2  # not a leaf: torch itself would refuse
    scale = live_twin(with_part(part)).pipe.text_encoder.scale
    assert scale is not part.scale
    assert torch.equal(scale, part.scale)
    assert not scale.requires_grad


# ---- what has no twin -----------------------------------------------------------------------------------------------
class Packed(torch.nn.Parameter):
    """A quantized weight, as the quantization libraries make them."""


def test_quantized_weights_are_refused() -> None:
    part = OneWeight()
    part.layer.weight = Packed(torch.zeros(4, 4))
    with pytest.raises(Unsupported, match=r"text_encoder\.layer\.weight is a Packed.*without quantization"):
        live_twin(with_part(part))


def test_absent_weights_are_refused() -> None:
    with pytest.raises(Unsupported, match=r"text_encoder\.layer\.weight is on the meta device.*Load them first"):
        live_twin(with_part(OneWeight().to("meta")))


def test_components_that_cannot_be_copied_are_refused() -> None:
    part = OneWeight()
    part.__dict__["lock"] = threading.Lock()
    with pytest.raises(Unsupported, match=r"text_encoder \(OneWeight\) cannot be copied: cannot pickle.*bundled name"):
        live_twin(with_part(part))
