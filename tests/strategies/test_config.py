"""What a loader makes of the config of a quantizer, against what apply() makes of the same weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.quantizers.bitsandbytes import bnb_quantizer

from memplan.facts import Component
from memplan.probes.pipeline import measure
from memplan.strategies import STRATEGIES, LayerwiseCasting
from memplan.strategy import Config
from tests.pipelines import build
from tests.some import some

FORMATS = ("bnb_4bit", "bnb_8bit", "int8_weight_only", "int8_dynamic", "fp8_weight_only")
FAMILIES = ("flux", "wan", "qwenimage", "sd3")
"""With T5's `wo`, modules that diffusers keeps in float32, a language model's head, projections of CLIP."""


@pytest.fixture(autouse=True)
def bitsandbytes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' loader asks for a GPU, which it then does not need."""
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
        monkeypatch.setattr(quantizer, "update_device_map", lambda *_: {"": "cpu"})


def quantizer(name: str, component: Component, **settings: Any) -> Any:
    cls: Any = next(cls for cls in STRATEGIES if cls.name == name)
    return cls(component.name, **{**cls.measured(component), **settings})


def evaluated(config: Config) -> Any:
    found: dict[str, Any] = {}
    exec("\n".join((*config.imports, f"config = {config.value}")), found)
    return found["config"]


def stored(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that holds a weight, scales among them."""
    for path, tensor in module.state_dict().items():
        inner = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else ()
        yield from ((f"{path}.{name}", getattr(tensor, name)) for name in inner)
        if not inner and isinstance(tensor, torch.Tensor):
            yield path, tensor


def assert_same(loaded: torch.nn.Module, converted: torch.nn.Module) -> None:
    theirs, ours = dict(stored(loaded)), dict(stored(converted))
    assert theirs.keys() == ours.keys()
    different = [path for path in ours if not same(theirs[path], ours[path])]
    assert not different


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    raw = [t.detach().contiguous().flatten().view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)


@pytest.mark.slow
@pytest.mark.parametrize("name", some(FORMATS, "bnb_4bit", "int8_weight_only"))
@pytest.mark.parametrize("family", some(FAMILIES, "flux"))
def test_a_loader_makes_the_same_weights(family: str, name: str, tmp_path: Path) -> None:
    pipe = build(family, dtype=torch.bfloat16)
    parts = [
        c for c in measure(pipe).components if c.library in ("diffusers", "transformers") and not c.lack("quantization")
    ]
    assert parts
    for component in parts:
        assert_loads_the_same(component, getattr(pipe, component.name), quantizer(name, component), tmp_path)


def assert_loads_the_same(component: Component, part: Any, strategy: Any, folder: Path) -> None:
    part.save_pretrained(folder / component.name)
    config = strategy.config(component)
    assert config is not None
    loaded = type(part).from_pretrained(
        folder / component.name, torch_dtype=getattr(torch, component.dtype), quantization_config=evaluated(config)
    )
    again = type(part).from_pretrained(folder / component.name, torch_dtype=getattr(torch, component.dtype))
    strategy.apply(type("Pipe", (), {component.name: again}), "cpu")
    assert_same(loaded, again)


@pytest.mark.slow
@pytest.mark.parametrize("name", some(FORMATS, "bnb_4bit"))
@pytest.mark.parametrize(
    ("key", "more"), [("text_encoder_2", ("block.0.layer.0",)), ("transformer", ("transformer_blocks.0", "proj_out"))]
)
def test_what_is_spared_besides_is_named(key: str, more: tuple[str, ...], name: str, tmp_path: Path) -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    component = measure(pipe).component(key)
    plain = quantizer(name, component)
    strategy = replace(plain, spare=(*plain.spare, *more))
    config, own = strategy.config(component), plain.config(component)
    assert own is not None
    assert "modules" not in own.value
    confused = key == "transformer" and "bnb" not in name  # torchao's would leave "single_transformer_blocks.0" too
    assert (config is None) == confused
    if not confused:
        assert_loads_the_same(component, getattr(pipe, key), strategy, tmp_path)


def test_components_of_other_libraries_have_none() -> None:
    component = replace(measure(build("flux")).component("transformer"), library="other")
    assert quantizer("int8_weight_only", component).config(component) is None


def test_techniques_without_a_loader_have_none() -> None:
    component = measure(build("flux")).component("transformer")
    assert LayerwiseCasting("transformer").config(component) is None


@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_bitsandbytes_defaults_are_not_relied_on(library: str) -> None:
    component = replace(measure(build("flux", dtype=torch.bfloat16)).component("transformer"), library=library)
    four, eight = (quantizer(name, component).config(component) for name in ("bnb_4bit", "bnb_8bit"))
    four, eight = evaluated(four), evaluated(eight)
    assert (four.load_in_4bit, four.load_in_8bit, eight.load_in_4bit, eight.load_in_8bit) == (True, False, False, True)
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_use_double_quant) == ("nf4", True)
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert type(four).__module__.startswith(library)
