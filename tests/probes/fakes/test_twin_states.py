"""Whatever has been done to a pipeline, a dry run reads it, and leaves it and the process as they were."""

import random
from collections.abc import Callable
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch.nn.modules import module as torch_module

from memplan.facts import Trace
from memplan.probes.fakes.twin import modules_of
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from tests.pipelines import build, inputs
from tests.pipelines.pictures import ip_adapter
from tests.probes.fakes.test_twin import anatomy
from tests.some import some

CPU = torch.device("cpu")


def grouped(pipe: Any) -> None:
    apply_group_offloading(pipe.transformer, CPU, CPU, offload_type="leaf_level")


def cast(pipe: Any) -> None:
    apply_layerwise_casting(pipe.transformer, torch.float8_e4m3fn, torch.float32)


def cast_and_grouped(pipe: Any) -> None:
    cast(pipe)
    grouped(pipe)


def in_sequence(pipe: Any) -> None:
    for part in modules_of(pipe).values():
        accelerate.cpu_offload(part, CPU, offload_buffers=True)


def compiled(pipe: Any) -> None:
    pipe.transformer.compile()
    pipe.vae = torch.compile(pipe.vae)


def tiled(pipe: Any) -> None:
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()


def in_training(pipe: Any) -> None:
    pipe.transformer.train()
    pipe.transformer.requires_grad_(True)


def on_call(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


STATES: dict[str, Callable[[Any], None]] = {
    f.__name__: f for f in (on_call, in_sequence, grouped, cast, cast_and_grouped, compiled, tiled, in_training)
}
ALIKE = ("on_call", "in_sequence", "grouped", "compiled")
"""States that do not change what a call holds: hooks stay behind."""


def contents(pipe: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights that are somewhere."""
    named = ((f"{key}.{path}", t) for key, part in modules_of(pipe).items() for path, t in part.state_dict().items())
    return {path: tensor.clone() for path, tensor in named if tensor.device.type != "meta"}


def process() -> dict[str, Any]:
    """What a dry run could change in the process."""
    return {
        "torch": torch.get_rng_state().tolist(), "numpy": str(np.random.get_state()), "python": random.getstate(),
        "dtype": torch.get_default_dtype(), "gradients": torch.is_grad_enabled(),
        "backend": _AttentionBackendRegistry.get_active_backend(),
        "hooks": (len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)),
        "modes": (torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()),
        "threads": torch.get_num_threads(), "deterministic": torch.are_deterministic_algorithms_enabled(),
    }  # fmt: skip


def peaks(trace: Trace) -> list[tuple[str, str, int]]:
    return [(call.component, call.method, call.activations) for call in trace.calls]


@pytest.mark.parametrize("state", some(STATES, "on_call", "grouped", "cast", "tiled"))
def test_a_pipeline_is_read_in_any_state_and_left_in_it(state: str) -> None:
    pipe = build("flux")
    plain = dry_run(open_pipeline(pipe), inputs("flux")) if state in ALIKE else None
    STATES[state](pipe)
    hooks, weights, surroundings = anatomy(pipe), contents(pipe), process()
    trace = dry_run(open_pipeline(pipe), inputs("flux"))
    assert process() == surroundings
    assert anatomy(pipe) == hooks
    assert all(torch.equal(tensor, weights[path]) for path, tensor in contents(pipe).items())
    assert plain is None or peaks(trace) == peaks(plain)


@pytest.mark.parametrize("state", ["on_call", "in_sequence"])
def test_an_offloaded_pipeline_runs_on_as_before(state: str) -> None:
    pipe = build("sd15")
    first = pipe(**inputs("sd15"))[0]
    STATES[state](pipe)
    dry_run(open_pipeline(pipe), inputs("sd15"))
    assert torch.equal(pipe(**inputs("sd15"))[0], first)


def test_an_ip_adapter_stays() -> None:
    pipe = ip_adapter()
    before = anatomy(pipe)
    dry_run(open_pipeline(pipe), {"prompt": "a dog", "height": 32, "width": 32, "num_inference_steps": 2})
    assert anatomy(pipe) == before
