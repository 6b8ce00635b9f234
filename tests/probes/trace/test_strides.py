"""Fake tensors have the strides that real ones have, also where a dimension is one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook

from tests.pipelines import build
from tests.probes.traced import Traced

Strides = list[tuple[str, tuple[int, ...]]]


@pytest.fixture(scope="module")
def vae() -> Any:
    return build("sd15").vae


@pytest.fixture(scope="module")
def deep() -> Any:
    return build("sana").vae


def strides_in(vae: Any, run: Callable[[Callable[[torch.Tensor], Any]], Any]) -> Strides:
    """The strides of what every module returns while `run` decodes."""
    names = {id(module): name for name, module in vae.named_modules()}
    found: Strides = []

    def note(module: torch.nn.Module, args: Any, result: Any) -> None:
        if isinstance(result, torch.Tensor) and id(module) in names:
            found.append((names[id(module)], result.stride()))

    handle = register_module_forward_hook(note)
    try:
        with torch.no_grad():
            run(lambda latents: vae.decode(latents).sample)
    finally:
        handle.remove()
    return found


def latents(batch: int) -> torch.Tensor:
    return torch.randn(batch, 4, 6, 6)


@pytest.mark.parametrize("batch", [1, 2])
def test_every_module_of_a_vae_returns_the_strides_of_a_real_run(vae: Any, batch: int) -> None:
    real = strides_in(vae, lambda decode: decode(latents(batch)))
    traced = strides_in(vae, lambda decode: Traced(decode, latents(batch), device="cpu"))
    assert traced == real
    assert len(real) > 20


def test_a_vae_that_goes_channels_last_by_itself_does_so_in_the_trace(deep: Any) -> None:
    real = strides_in(deep, lambda decode: decode(latents(1)))
    assert strides_in(deep, lambda decode: Traced(decode, latents(1), device="cpu")) == real


def test_the_library_alone_gets_a_batch_of_one_wrong(vae: Any) -> None:
    def on_fakes(decode: Callable[[torch.Tensor], Any]) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            decode(mode.from_tensor(latents(1)))

    assert strides_in(vae, on_fakes) != strides_in(vae, lambda decode: decode(latents(1)))
