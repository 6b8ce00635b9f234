"""Which ops become one kernel, worked out by hand and held against what inductor makes of the same code."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from torch import nn
from torch.nn import functional as F

from memplan.facts import ELEMENTWISE, Ops
from memplan.probes.trace.loops import LONG_ROW
from tests.probes.traced import Traced

ROWS, WIDE = 32, 64
FULL, ROW = ROWS * WIDE * 4, WIDE * 4
"""Bytes of a (32, 64) tensor in float32 and of one row of it."""


def kernels(function: Callable[..., Any], *inputs: torch.Tensor) -> list[Ops]:
    """The elementwise work of `function` once compiled, segment by segment."""
    segments = Traced(function, *inputs, device="cpu").recording.segments()
    return [ops for segment in segments for ops in segment.compiled if ops.family == ELEMENTWISE]


def count(function: Callable[..., Any], *inputs: torch.Tensor) -> tuple[int, int]:
    found = kernels(function, *inputs)
    return sum(ops.count for ops in found), sum(ops.traffic for ops in found)


def full() -> torch.Tensor:
    return torch.zeros(ROWS, WIDE)


# ---- by hand ---------------------------------------------------------------------------------------------------------
def test_a_chain_reads_its_inputs_and_writes_its_result() -> None:
    assert count(lambda x: F.gelu(x * 2 + 1), full()) == (1, 2 * FULL)


def test_a_norm_is_part_of_its_chain_and_a_product_parts_two() -> None:
    def block(x: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.gelu((F.layer_norm(x, (WIDE,)) * (1 + scale)) @ weight) + x

    normed, added = FULL + ROW + FULL, FULL + FULL + FULL
    assert count(block, full(), torch.zeros(WIDE), torch.zeros(WIDE, WIDE)) == (2, normed + added)


def test_a_norm_written_out_is_one_kernel() -> None:
    def norm(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    assert count(norm, full()) == (1, 2 * FULL)


def test_what_a_product_reads_is_written_once_and_read_once_by_each_kernel() -> None:
    def block(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = torch.sin(x)
        return y @ weight + y

    assert count(block, full(), torch.zeros(WIDE, WIDE)) == (2, 2 * FULL + 3 * FULL)


def test_halves_of_one_tensor_are_read_once() -> None:
    def gated(x: torch.Tensor) -> torch.Tensor:
        one, other = x.chunk(2, dim=-1)
        return one * F.gelu(other)

    assert count(gated, full()) == (1, FULL + FULL // 2)


def test_what_is_changed_in_place_is_fused_like_anything_else() -> None:
    assert count(lambda x: (x + 1).mul_(2).add_(x), full()) == (1, 2 * FULL)


def test_a_norm_of_large_groups_reads_its_image_twice() -> None:
    small, large = (torch.zeros(1, 4, side, side) for side in (16, 128))
    assert small.numel() // 2 <= LONG_ROW < large.numel() // 2
    for image, reads in ((small, 1), (large, 2)):
        found, moved = count(lambda x: F.silu(F.group_norm(x, 2)), image)
        assert found == reads
        assert moved == pytest.approx((reads + 1) * image.nbytes, rel=0.01)


def test_what_has_no_loop_is_left_alone() -> None:
    found = kernels(lambda x: torch.sort(x * 2).values + 1, full())
    assert sum(ops.count for ops in found) == 3


# ---- beside inductor -------------------------------------------------------------------------------------------------
class Stop(Exception):
    """All that is wanted of the compiler is known."""


def inductors(module: nn.Module, *inputs: Any) -> tuple[int, int]:
    """Kernels and bytes that inductor plans for `module` on the CPU; they are not written, which would take minutes."""
    from torch._inductor import config
    from torch._inductor.scheduler import NopKernelSchedulerNode, Scheduler

    found: list[int] = []

    def stop(self: Any) -> None:
        own = (node for node in self.nodes if not node.is_extern() and not isinstance(node, NopKernelSchedulerNode))
        found.extend(node.get_read_write_buffers_sizes() for node in own)
        raise Stop

    torch._dynamo.reset()
    uncached, stopped = config.patch(force_disable_caches=True), pytest.raises(Exception, match="Stop")
    with torch.no_grad(), patch.object(Scheduler, "codegen", stop), uncached, stopped:
        torch.compile(module)(*inputs)
    return len(found), sum(found)


class Block(nn.Module):
    """A norm, two layers with an activation between them, and what went in added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDE), nn.Linear(WIDE, 4 * WIDE), nn.Linear(4 * WIDE, WIDE)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x + scale * self.down(F.gelu(self.up(self.norm(x) * (1 + scale))))


@pytest.mark.slow
def test_a_block_has_the_kernels_that_inductor_plans() -> None:
    block, inputs = Block(), (torch.zeros(1, ROWS, WIDE), torch.zeros(WIDE))
    theirs, ours = inductors(block, *inputs), count(fake_weights(block), *inputs, *block.parameters())
    assert ours[0] == theirs[0]
    assert ours[1] == pytest.approx(theirs[1], rel=0.05)


@pytest.mark.wide
@pytest.mark.parametrize("kind", [FluxTransformerBlock, FluxSingleTransformerBlock])
def test_blocks_of_flux_move_about_what_inductor_plans(kind: Any) -> None:
    block, rope = kind(WIDE, 4, 16).eval(), (torch.zeros(40, 16), torch.zeros(40, 16))
    inputs = (torch.zeros(1, ROWS, WIDE), torch.zeros(1, 8, WIDE), torch.zeros(1, WIDE))
    theirs = inductors(block, *inputs, rope)

    def call(image: torch.Tensor, text: torch.Tensor, time: torch.Tensor, *more: torch.Tensor) -> Any:
        return fake_weights(block)(image, text, time, more[:2], *more[2:])

    given = (*inputs, *rope, *block.parameters())
    segments = Traced(call, *given, device="cpu").recording.segments()
    ours, eager = count(call, *given), sum(s.traffic for s in segments)
    attention = 4 * 40 * ROW + 4 * 4 * 40  # the CPU's kernel of it, whose operations nobody counts, is among them
    assert abs(ours[0] - 1 - theirs[0]) <= 3
    assert ours[1] - attention == pytest.approx(theirs[1], rel=0.25)
    assert theirs[1] < eager / 2


def fake_weights(module: nn.Module) -> Callable[..., Any]:
    """`module` called with its weights as the last arguments."""
    names = [name for name, _ in module.named_parameters()]

    def call(*given: Any) -> Any:
        inputs, weights = given[: -len(names)], given[-len(names) :]
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), inputs)

    return call
