"""What memplan says of a pipeline leaves it as it was, whatever libraries have done to it before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.hooks import apply_group_offloading

import memplan
from memplan.probes.fakes.quantized import inner_tensors
from memplan.probes.fakes.twin import modules_of
from tests.pipelines import build, inputs
from tests.pipelines.loras import with_lora
from tests.pipelines.quantized import eight_bit_parts, four_bit_parts, int8_parts
from tests.probes.fakes.test_twin import anatomy
from tests.some import some

CPU = torch.device("cpu")


def on_call(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def in_groups(pipe: Any) -> None:
    apply_group_offloading(pipe.transformer, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)
    apply_group_offloading(pipe.text_encoder, CPU, CPU, offload_type="leaf_level")


def compiled(pipe: Any) -> None:
    pipe.transformer.compile(backend="eager")


def compiled_in_blocks(pipe: Any) -> None:
    pipe.transformer.compile_repeated_blocks(backend="eager")


STATES: dict[str, Callable[[Any], Any]] = {
    f.__name__: f
    for f in (
        *(with_lora, four_bit_parts, eight_bit_parts, int8_parts),
        *(on_call, in_groups, compiled, compiled_in_blocks),
    )
}


def tensors(pipe: Any) -> dict[str, torch.Tensor]:
    """Copies of what is behind all weights, scales too, by path."""
    named = {f"{key}.{path}": t for key, part in modules_of(pipe).items() for path, t in part.state_dict().items()}
    weights = ((f"{key}.{path}", w) for key, part in modules_of(pipe).items() for path, w in part.named_parameters())
    behind = {f"{path} {i}": t for path, w in weights for i, t in enumerate(inner_tensors(w))}
    whole = {path: t for path, t in (named | behind).items() if type(t) in (torch.Tensor, torch.nn.Parameter)}
    return {path: tensor.detach().clone() for path, tensor in whole.items()}


def inside(pipe: Any) -> dict[str, Any]:
    """The attributes of what modules keep beside their weights: hooks, states of layers and of adapters."""
    modules = ((f"{k}.{path}", m) for k, part in modules_of(pipe).items() for path, m in part.named_modules())
    found: dict[str, Any] = {}
    for path, module in modules:
        for name in ("state", "scaling", "merged_adapters", "_active_adapter", "_disable_adapters", "_diffusers_hook"):
            value = vars(module).get(name)
            held = vars(value) if hasattr(value, "__dict__") else value
            found[f"{path}.{name}"] = {key: id(v) for key, v in held.items()} if isinstance(held, dict) else repr(held)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("state", some(STATES, "with_lora"))
def test_probe_and_recommend_leave_a_pipeline_as_it_was(state: str) -> None:
    pipe = build("flux")
    STATES[state](pipe)
    first = pipe(**inputs("flux"))[0]  # what comes with the first call is there by now
    before = anatomy(pipe), inside(pipe), tensors(pipe)
    assert memplan.probe(pipe).size > 0
    found = memplan.recommend(pipe, target=memplan.Target(vram=24, ram=64), **inputs("flux"))
    assert found.pick("balanced") is not None
    assert anatomy(pipe) == before[0]
    assert inside(pipe) == before[1]
    later = tensors(pipe)
    assert later.keys() == before[2].keys()
    assert all(torch.equal(later[path], tensor) for path, tensor in before[2].items())
    assert torch.equal(pipe(**inputs("flux"))[0], first)
