"""What backwards hold while they run, beside single ops on this CPU."""

from typing import Any

import pytest
import torch

from memplan.probes.trace.workspace_of_backward import workspace_of_backward
from tests.accuracy.measured import held_by

WITHIN = 0.02
IMAGE, FILTER, BOTH = [True, False, False], [False, True, False], [True, True, False]


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="oneDNN chooses kernels by the CPU")
@pytest.mark.parametrize("wanted", [IMAGE, FILTER, BOTH])
@pytest.mark.parametrize(
    "what", [(64, 32, 32, 3, 1), (64, 64, 32, 3, 2), (64, 64, 33, 3, 2), (64, 64, 32, 2, 2), (48, 24, 30, 3, 3)]
)
def test_a_convolutions_backward_holds_copies(what: tuple[int, ...], wanted: list[bool]) -> None:
    channels, results, size, kernel, stride = what
    image, filters = torch.randn(2, channels, size, size), torch.randn(results, channels, kernel, kernel)
    padding = [kernel % 2, kernel % 2]
    how: list[Any] = [[stride, stride], padding, [1, 1], False, [0, 0], 1]
    gradient = torch.randn_like(torch.ops.aten.convolution(image, filters, None, *how))
    args = (gradient, image, filters, [results], *how, wanted)
    op = torch.ops.aten.convolution_backward.default
    op(*args)
    _, peak, left = held_by(lambda: op(*args))
    assert workspace_of_backward(op, args, "cpu") / (peak - left) == pytest.approx(1, abs=WITHIN)
