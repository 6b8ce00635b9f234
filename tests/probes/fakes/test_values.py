"""Small integers and booleans keep their values inside a component: code that looks at them does what it would."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memplan.errors import Unsupported
from tests.probes.traced import Traced

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
ROWS = torch.zeros(2, 4, 8)


def real(out: Any) -> Any:
    """Shapes of tensors, values of everything else."""
    if isinstance(out, Tensor):
        return tuple(out.shape), out.stride(), out.dtype
    return [real(o) for o in out] if isinstance(out, list | tuple) else out


def written(mask: Tensor) -> list[int]:
    """Writes through a view, then reads the whole."""
    lengths = torch.zeros(4, dtype=torch.int64)
    lengths[1:3] += mask.sum(dim=1)
    lengths[0] = 7
    return lengths.tolist()


# ---- what is known ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "function",
    [
        lambda mask, rows: mask.sum(dim=1).tolist(),
        lambda mask, rows: int(mask.sum()),
        lambda mask, rows: bool(mask.float().mean() < 0.5),
        lambda mask, rows: rows[mask],
        lambda mask, rows: rows[:, ~mask[0]],
        lambda mask, rows: torch.cat([rows[0][mask[0]], rows[1][~mask[1]]]),
        lambda mask, rows: mask.nonzero(),
        lambda mask, rows: torch.where(mask),
        lambda mask, rows: rows[:, : mask.sum(dim=1).max()],
        lambda mask, rows: rows.masked_select(mask[..., None]),
        lambda mask, rows: rows.repeat_interleave(mask.sum(dim=0), dim=1),
        lambda mask, rows: rows.split(mask.sum(dim=0).tolist(), dim=1),
        lambda mask, rows: torch.unique(mask.int(), return_inverse=True),
        lambda mask, rows: F.one_hot(mask.sum(dim=1)),
        lambda mask, rows: torch.equal(mask, mask.clone()),
        lambda mask, rows: torch.arange(int(mask.sum())),
        lambda mask, rows: written(mask),
        lambda mask, rows: mask.numpy().sum().item(),
        lambda mask, rows: torch.tensor([3, 4]).tolist(),
    ],
)
def test_code_takes_the_branch_of_the_real_call(function: Callable[..., Any]) -> None:
    traced = Traced(function, MASK, ROWS, device="cpu")
    assert real(traced.out) == real(function(MASK, ROWS))
    assert traced.assumptions == []


def test_what_is_given_is_not_written_to() -> None:
    given = torch.tensor([1, 2, 3])
    assert Traced(lambda x: x.add_(1).tolist(), given).out == [2, 3, 4]
    assert given.tolist() == [1, 2, 3]


def test_it_is_known_whose_values_were_looked_at() -> None:
    def looked_at(function: Callable[..., Any]) -> list[bool]:
        return [source.read for source in Traced(function, MASK, torch.tensor([5]), device="cpu").sources]

    assert looked_at(lambda mask, step: (mask.sum(), step + 1)) == [False, False]
    assert looked_at(lambda mask, step: (step + 1).item()) == [False, True]
    assert looked_at(lambda mask, step: (mask.sum() + step).item()) == [True, True]
    assert looked_at(lambda mask, step: ROWS[mask]) == [True, False]


def unknown(*shape: int) -> Tensor:
    """What nobody can know before the run."""
    return torch.rand(shape)


# ---- what is not known -----------------------------------------------------------------------------------------------
def test_a_number_that_is_not_known_is_taken_as_zero_and_said_so() -> None:
    traced = Traced(lambda x: ((x + unknown(3)).sum().item(), unknown(3).numpy().tolist()), torch.ones(3))
    assert traced.out == (0.0, [0.0, 0.0, 0.0])
    item, rest = traced.assumptions
    assert item.startswith("part: item() of a () float32 tensor is taken as zero, since")
    assert rest.startswith("part: numpy() of a (3,) float32 tensor is taken as zeros, since")


def test_a_mask_that_is_not_known_lets_everything_through() -> None:
    traced = Traced(lambda rows: rows[unknown(2, 4, 8) > 0], ROWS)
    assert traced.out.shape == (ROWS.numel(),)
    (only,) = traced.assumptions
    assert only.startswith("part: nonzero() of a (2, 4, 8) bool tensor is taken to find every element")


def test_what_is_written_over_with_the_unknown_is_not_known_any_more() -> None:
    def overwrite(mask: Tensor, rows: Tensor) -> Any:
        whole = mask.clone()
        whole[0] = unknown(4) > 0
        return whole.sum().item(), mask.sum().item()

    traced = Traced(overwrite, MASK, ROWS)
    assert traced.out == (0, MASK.sum().item())
    assert len(traced.assumptions) == 1


def test_random_numbers_are_not_known() -> None:
    assert Traced(lambda x: torch.randint(3, (4,)).tolist(), ROWS).assumptions


def test_what_has_no_bound_is_refused() -> None:
    with pytest.raises(
        Unsupported, match=r"part: unique\(\) of a \(2, 4, 8\) float32 tensor gives a result whose size"
    ):
        Traced(lambda rows: torch.unique(unknown(2, 4, 8)), ROWS)
