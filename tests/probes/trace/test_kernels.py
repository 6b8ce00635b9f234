"""What the planned device's kernels hold where the CPU's would hold other memory."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.accuracy.measured import peak_of
from tests.probes.traced import Traced

HALF = torch.bfloat16
ITEM = 2
HEADS, LENGTH = 2, 24


def heads(dim: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.zeros(1, HEADS, LENGTH, dim, dtype=dtype)


def attention(dim: int, dtype: torch.dtype = HALF, mask: torch.Tensor | None = None) -> Traced:
    inputs = [heads(dim, dtype) for _ in range(3)]
    if mask is None:
        return Traced(F.scaled_dot_product_attention, *inputs)
    return Traced(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m), *inputs, mask)


# ---- attention -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_flash_holds_its_result_and_a_float_per_row(dim: int) -> None:
    assert attention(dim).peak == HEADS * LENGTH * (dim * ITEM + 4)


def test_beyond_256_the_efficient_kernel_adds_up_in_float32() -> None:
    assert attention(512).peak == HEADS * LENGTH * 512 * (ITEM + 4)


def test_float32_needs_no_second_buffer() -> None:
    assert attention(512, torch.float32).peak == HEADS * LENGTH * 512 * 4


def test_a_boolean_mask_is_converted_and_padded() -> None:
    result = HEADS * LENGTH * 64 * ITEM
    mask = torch.zeros(1, 1, LENGTH, LENGTH, dtype=torch.bool)
    assert attention(64, mask=mask).peak == result + LENGTH * LENGTH * ITEM + LENGTH * 32 * ITEM


def test_a_mask_of_whole_rows_of_16_is_used_as_it_is() -> None:
    mask = torch.zeros(1, 1, 32, 32, dtype=HALF)
    inputs = [torch.zeros(1, HEADS, 32, 64, dtype=HALF) for _ in range(3)]
    traced = Traced(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m), *inputs, mask)
    assert traced.peak == HEADS * 32 * 64 * ITEM


def test_flash_keeps_the_layout_of_the_query_and_the_efficient_kernel_does_not() -> None:
    def of_projection(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))

    def strides(dtype: torch.dtype, dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        plain = [torch.zeros(1, HEADS, LENGTH, dim, dtype=dtype) for _ in range(3)]
        projected = [torch.zeros(1, LENGTH, HEADS, dim, dtype=dtype) for _ in range(3)]
        plainly = Traced(F.scaled_dot_product_attention, *plain)
        return plainly.out.stride(), Traced(of_projection, *projected).out.stride()

    plain, projected = strides(HALF, 64)
    assert plain != projected
    assert strides(torch.float32, 64) == (projected, projected)


T4, A100 = (7, 5), (8, 0)
MATH = "aten.bmm"
EFFICIENT = HEADS * LENGTH * 64 * ITEM
FLASH = EFFICIENT + HEADS * LENGTH * 4


@pytest.mark.parametrize(
    ("dtype", "dim", "capability", "held"),
    [
        (torch.float16, 64, A100, FLASH),
        (torch.float16, 64, T4, EFFICIENT),
        (torch.bfloat16, 64, A100, FLASH),
        (torch.bfloat16, 64, T4, None),
        (torch.float32, 64, T4, 2 * EFFICIENT),
        (torch.float32, 62, T4, HEADS * LENGTH * 62 * 4),
        (torch.float32, 62, A100, None),
        (torch.float16, 60, T4, None),
        (torch.float16, 60, A100, HEADS * LENGTH * (60 * ITEM + 4)),
    ],
)
def test_the_kernel_depends_on_the_card(
    dtype: torch.dtype, dim: int, capability: tuple[int, int], held: int | None
) -> None:
    traced = Traced(F.scaled_dot_product_attention, *(heads(dim, dtype) for _ in range(3)), capability=capability)
    assert (MATH in traced.ops) == (held is None)
    assert held in (None, traced.peak)
    said = [sentence for sentence in traced.assumptions if "all scores of attention are held at once" in sentence]
    assert len(said) == (held is None)
    assert all(sentence.endswith("float16 has one") == (dtype == torch.bfloat16) for sentence in said)


@pytest.mark.parametrize(("dtype", "dim", "card"), [(torch.bfloat16, 64, T4), (torch.float32, 62, A100)])
@pytest.mark.parametrize("masked", [False, True])
def test_without_a_kernel_all_scores_are_held(
    dtype: torch.dtype, dim: int, card: tuple[int, int], masked: bool
) -> None:
    given = torch.zeros(1, HEADS, 128, dim, dtype=dtype)
    mask = torch.ones(1, 1, 128, 128, dtype=torch.bool)

    def function(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, attn_mask=m if masked else None)

    with sdpa_kernel(SDPBackend.MATH):
        _, measured = peak_of(lambda: function(given, mask))
    assert Traced(function, given, mask, capability=card).peak == pytest.approx(measured, rel=0.01)
    assert measured > 2 * HEADS * 128 * 128 * 4


def test_attention_costs_two_products() -> None:
    assert attention(64).flops == 2 * 2 * HEADS * LENGTH * LENGTH * 64


def test_a_cpu_runs_its_own_kernel() -> None:
    inputs = [heads(64, torch.float32) for _ in range(3)]
    assert Traced(F.scaled_dot_product_attention, *inputs, device="cpu").ops == [
        "aten._scaled_dot_product_flash_attention_for_cpu"
    ]


# ---- norms -----------------------------------------------------------------------------------------------------------
def test_group_norm_copies_a_channels_last_image() -> None:
    image = torch.zeros(2, 8, 16, 16, dtype=HALF)
    last = image.to(memory_format=torch.channels_last)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 4)

    statistics = 2 * 2 * 4 * ITEM  # mean and deviation of each group
    assert Traced(norm, image).peak == image.nbytes + statistics
    assert Traced(norm, last).peak == 2 * image.nbytes + statistics
    assert Traced(norm, last).out.is_contiguous()


def test_rms_norm_holds_its_result_and_a_float_per_row() -> None:
    rows = torch.zeros(10, 64, dtype=HALF)
    weight = torch.ones(64, dtype=HALF)
    traced = Traced(lambda x, w: F.rms_norm(x, (64,), w, 1e-6), rows, weight)
    assert traced.peak == rows.nbytes + 10 * 4
    on_cpu = Traced(lambda x, w: F.rms_norm(x, (64,), w, 1e-6), rows, weight, device="cpu")
    assert on_cpu.peak > traced.peak
    assert traced.out.shape == rows.shape


def test_rms_norm_with_a_weight_of_another_dtype_is_not_fused() -> None:
    def norm(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (64,), w, 1e-6)

    rows, weight = torch.zeros(10, 64, dtype=HALF), torch.ones(64)
    assert Traced(norm, rows, weight).peak == Traced(norm, rows, weight, device="cpu").peak


@pytest.mark.parametrize("capability", [(7, 0), (8, 0)])
def test_attention_by_keywords_is_attention(capability: tuple[int, int]) -> None:
    """As the dispatcher of diffusers calls it."""

    def named(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=None, dropout_p=0.0, scale=None)

    inputs = [heads(64) for _ in range(3)]
    plain = Traced(F.scaled_dot_product_attention, *inputs, capability=capability)
    found = Traced(named, *inputs, capability=capability)
    assert (found.peak, found.ops) == (plain.peak, plain.ops)
    assert ("aten.bmm" in found.ops) == (capability < (8, 0))
