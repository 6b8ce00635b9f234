"""What kernels of other packages hold, as diffusers' dispatcher calls them, and that no stand-in stays behind."""

from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch.nn.attention import flex_attention

from tests.accuracy.measured import peak_of
from tests.probes.traced import Traced

BATCH, LENGTH, HEADS = 2, 192, 4
ROWS = BATCH * LENGTH * HEADS
HALF, ITEM = torch.bfloat16, 2
MASK = torch.ones(BATCH, LENGTH, dtype=torch.bool)


def heads(dim: int, dtype: torch.dtype = HALF) -> list[torch.Tensor]:
    """Queries, keys and values."""
    return [torch.zeros(BATCH, LENGTH, HEADS, dim, dtype=dtype) for _ in range(3)]


def computed(backend: str, *given: torch.Tensor) -> torch.Tensor:
    """Attention by the dispatcher, of queries, keys and values, and perhaps a mask."""
    settings = dict(zip(("query", "key", "value", "attn_mask"), given, strict=False))
    out: torch.Tensor = dispatch_attention_fn(**settings, backend=AttentionBackendName(backend))
    return out


def traced(backend: str, given: list[torch.Tensor], *mask: torch.Tensor, **settings: Any) -> Traced:
    """The dry run of it."""
    return Traced(lambda *tensors: computed(backend, *tensors), *given, *mask, **settings)


@pytest.mark.parametrize("backend", ["flash", "_flash_3", "flash_hub", "_flash_3_hub", "xformers", "_native_flash"])
def test_flash_holds_its_result_and_a_float_per_row(backend: str) -> None:
    found = traced(backend, heads(64))
    assert found.peak == ROWS * (64 * ITEM + 4)
    assert found.flops == 2 * 2 * ROWS * LENGTH * 64
    assert found.out.is_contiguous()


def test_flash_pads_narrow_heads() -> None:
    assert traced("flash", heads(60)).peak == 4 * ROWS * 64 * ITEM + ROWS * 4
    assert traced("flash", heads(60)).out.shape[-1] == 60


def test_cudnn_is_given_contiguous_copies() -> None:
    assert traced("_native_cudnn", heads(64)).peak == 3 * ROWS * 64 * ITEM + ROWS * (64 * ITEM + 4)


@pytest.mark.parametrize("backend", ["sage", "sage_hub"])
def test_sage_holds_its_inputs_in_8_bits(backend: str) -> None:
    """Queries, keys, the padded values, those turned round, and those in float8, beside the result."""
    padded = 256 * ROWS // LENGTH
    assert traced(backend, heads(64)).peak == 64 * (2 * ROWS + ITEM * ROWS + (2 * ITEM + 1) * padded)
    assert traced(backend, heads(40)).out.shape[-1] == 40


def test_xformers_makes_a_mask_whole() -> None:
    """The dispatcher writes one value for each score."""
    scores = BATCH * HEADS * LENGTH * LENGTH * ITEM
    found = traced("xformers", heads(64), MASK)
    assert scores + ROWS * 64 * ITEM <= found.peak < 1.1 * (scores + ROWS * 64 * ITEM)


@pytest.mark.parametrize(
    ("backend", "dim", "dtype", "card", "words"),
    [
        ("flash", 64, torch.float32, (8, 0), "flash-attention takes no float32 with heads of 64"),
        ("flash", 264, HALF, (8, 0), "flash-attention takes no bfloat16 with heads of 264"),
        ("sage", 192, HALF, (8, 0), "SageAttention takes no bfloat16 with heads of 192"),
        ("xformers", 64, HALF, (7, 0), "xformers takes no bfloat16"),
        ("_native_flash", 64, torch.float32, (8, 0), "PyTorch's flash kernel does not take float32 with heads of 64"),
        ("_native_cudnn", 136, HALF, (8, 0), "PyTorch's cuDNN kernel does not take bfloat16 with heads of 136"),
        (
            "_native_efficient",
            64,
            HALF,
            (7, 0),
            "PyTorch's memory-efficient kernel does not take bfloat16 with heads of 64 before compute capability 8.0",
        ),
    ],
)
def test_what_a_kernel_does_not_take_fails(
    backend: str, dim: int, dtype: torch.dtype, card: tuple[int, int], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        traced(backend, heads(dim, dtype), capability=card)


@pytest.mark.parametrize("backend", ["flash", "_flash_3", "sage", "_native_flash"])
def test_masks_are_refused_by_the_dispatcher(backend: str) -> None:
    with pytest.raises(ValueError, match="`attn_mask` is not supported"):
        traced(backend, heads(64), MASK)


@pytest.mark.parametrize("backend", ["native", "_native_math", "flex"])
def test_on_a_cpu_they_hold_what_is_measured(backend: str) -> None:
    given = heads(64, torch.float32)
    computed(backend, *given)
    _, measured = peak_of(lambda: computed(backend, *given))
    assert traced(backend, given, device="cpu").peak == pytest.approx(measured, abs=16)


def test_no_stand_in_stays() -> None:
    names = ("flash_attn_func", "_wrapped_flash_attn_3", "sageattn", "xops")
    before = [getattr(attention_dispatch, name) for name in names], flex_attention.flex_attention
    kernels = [kernel.kernel_fn for kernel in attention_dispatch._HUB_KERNELS_REGISTRY.values()]
    traced("flash", heads(64))
    assert ([getattr(attention_dispatch, name) for name in names], flex_attention.flex_attention) == before
    assert [kernel.kernel_fn for kernel in attention_dispatch._HUB_KERNELS_REGISTRY.values()] == kernels


@pytest.mark.parametrize("dtype", [torch.bool, HALF])
def test_flex_with_a_mask_is_not_followed(dtype: torch.dtype) -> None:
    mask = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=dtype)
    with pytest.raises(RuntimeError, match="masks of flex attention are not followed"):
        traced("flex", heads(64), mask)
