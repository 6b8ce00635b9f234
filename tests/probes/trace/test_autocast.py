"""What a dry run casts as a CUDA device's autocast does, where the CPU's does otherwise."""

from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch.nn import functional as F

from memplan.probes.trace.autocast import autocasting, rules_of
from memplan.probes.trace.steps import backward

LOW, WIDE = torch.randn(2, 4, 8, dtype=torch.bfloat16), torch.randn(2, 4, 8)
ONES = torch.ones(8)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (lambda: F.layer_norm(LOW, (8,), ONES, ONES), torch.float32),
        (lambda: F.rms_norm(LOW, (8,), ONES), torch.float32),
        (lambda: F.group_norm(LOW, 2), torch.float32),
        (lambda: LOW.softmax(-1), torch.float32),
        (lambda: F.softmax(LOW, dim=-1), torch.float32),
        (lambda: LOW**2, torch.float32),
        (LOW.sum, torch.float32),
        (lambda: LOW.sum(dtype=torch.bfloat16), torch.bfloat16),
        (lambda: F.silu(LOW), torch.bfloat16),
        (lambda: F.linear(WIDE, torch.randn(8, 8)), torch.bfloat16),
        (lambda: F.scaled_dot_product_attention(WIDE, LOW, WIDE), torch.bfloat16),
        (lambda: F.layer_norm(LOW.double(), (8,)), torch.float64),
    ],
)
def test_each_op_gives_the_dtype_of_a_cuda_device(op: Callable[[], torch.Tensor], expected: torch.dtype) -> None:
    """Source: AT_FORALL_LOWER_PRECISION_FP, AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE of autocast_mode.h."""
    with autocasting("bfloat16"), rules_of("cuda"):
        assert op().dtype == expected


def test_outside_of_a_region_and_on_a_cpu_nothing_is_cast() -> None:
    with rules_of("cuda"):
        assert LOW.softmax(-1).dtype == torch.bfloat16
    with autocasting(""), rules_of("cuda"):
        assert LOW.softmax(-1).dtype == torch.bfloat16
    with autocasting("bfloat16"), rules_of("cpu"):
        assert LOW.softmax(-1).dtype == torch.bfloat16


def test_checkpointed_calls_are_cast_again_in_the_backward() -> None:
    seen: list[torch.dtype] = []

    def block(x: torch.Tensor) -> torch.Tensor:
        out = F.layer_norm(x.bfloat16(), (8,)) * 2
        seen.append(out.dtype)
        return out.sin()

    with rules_of("cuda"):
        with autocasting("bfloat16"):
            out = torch.utils.checkpoint.checkpoint(block, WIDE.clone().requires_grad_(), use_reentrant=False)
        backward([out], [torch.ones_like(out)])
    assert seen == [torch.float32] * 2
