"""What tests of differentiable calls share: a solve with its gradients, and what a pipeline is like beside them."""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torch.utils.checkpoint

import memplan
from tests.accuracy import measured
from tests.pipelines import inputs

STEPS = 4


def call_of(family: str, **changed: Any) -> dict[str, Any]:
    """A call of four steps that ends with latents."""
    return inputs(family) | {"num_inference_steps": STEPS, "output_type": "latent"} | changed


def denoiser(pipe: Any) -> Any:
    """The component that denoises."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def loss_of(result: Any) -> torch.Tensor:
    """A number that depends on all of what a call returns."""
    return result[0].float().square().mean()


def gradients(part: Any) -> dict[str, torch.Tensor]:
    """The gradients of the weights that have some, which then have none."""
    found = {name: weight.grad for name, weight in part.named_parameters() if weight.grad is not None}
    part.zero_grad(set_to_none=True)
    return found


def only_the_denoiser(pipe: Any) -> Any:
    """The pipeline, of which the denoiser alone asks for gradients."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(part is denoiser(pipe))
    return pipe


def solved(pipe: Any, call: dict[str, Any], **options: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What a differentiable call returns, and the gradients that it gives the denoiser."""
    with memplan.differentiable(pipe, **options):
        result = pipe(**call)
        loss_of(result).backward()
    return result[0].detach(), gradients(denoiser(pipe))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether they are the same gradients up to how sums are rounded."""
    close = (torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-7) for name in one)
    return one.keys() == other.keys() and all(close)


def peak_of(function: Callable[[], Any]) -> tuple[Any, int]:
    """As `measured.peak_of`, where no pipeline of an earlier test is collected meanwhile, and taken off the peak."""
    gc.collect()
    return measured.peak_of(function)


@contextmanager
def without_random_states() -> Generator[None]:
    """What is checkpointed keeps no states of random numbers, 5 KiB each: they are in host memory beside any device."""
    plain = torch.utils.checkpoint.checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.checkpoint, "checkpoint", partial(plain, preserve_rng_state=False))
        yield


def state(pipe: Any) -> Any:
    """What a context might leave behind: attributes of classes and modules, modes, and what asks for gradients."""
    modules = [m for part in pipe.components.values() if isinstance(part, torch.nn.Module) for m in part.modules()]
    kinds: list[Any] = [type(pipe), type(pipe.scheduler)]
    own = [{key: id(value) for key, value in vars(kind).items() if callable(value)} for kind in kinds]
    there = [(sorted(key for key in vars(m) if key != "_diffusers_hook"), m.training) for m in modules]
    asked = [weight.requires_grad for m in modules for weight in m.parameters(recurse=False)]
    caches = [id(getattr(m, "_cache_config", None)) for m in modules]
    return own, there, asked, caches, torch.is_grad_enabled()


def counted(part: Any) -> list[int]:
    """Grows by one with each forward of `part` from now on."""
    made: list[int] = []
    part.register_forward_pre_hook(lambda *_: made.append(1))
    return made


def failing(after: int) -> Callable[..., Any]:
    """A hook that fails in the forward after so many."""
    made: list[int] = []

    def hook(*_: Any) -> None:
        made.append(1)
        if len(made) > after:
            raise RuntimeError("this forward fails")

    return hook
