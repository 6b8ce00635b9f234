"""What measure() says of real and fake pipelines, and that it leaves them alone."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks.hooks import StateManager
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.facts import GIB, MIB, Component
from memplan.probes.pipeline import measure
from tests.pipelines import FAMILIES, build
from tests.probes.full_size import full_size


class OneComponent:
    """A pipeline of one component, for modules measured by themselves."""

    model_cpu_offload_seq = "part"

    def __init__(self, **components: Any) -> None:
        self.components = components


def of(module: Any) -> Component:
    """The facts of one module."""
    return measure(OneComponent(part=module)).component("part")


def state(pipe: Any) -> list[Any]:
    """Everything a probe could leave behind: attributes of every module, identities and dtypes of every tensor."""
    modules = [m for c in pipe.components.values() if isinstance(c, torch.nn.Module) for m in c.modules()]
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    own = [{k: id(v) for k, v in vars(m).items()} for m in modules]
    return [own, [(id(t), t.data_ptr(), t.dtype, t.device, t._version) for t in tensors]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_measured_pipeline_is_as_before(family: str) -> None:
    pipe = build(family)
    before, attributes = state(pipe), dict(vars(pipe))
    measure(pipe)
    assert state(pipe) == before
    assert vars(pipe) == attributes


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_unique_tensors(family: str) -> None:
    pipe = build(family)
    for component in measure(pipe).components:
        module = getattr(pipe, component.name)
        tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}.values()
        assert component.size == sum(t.numel() * t.element_size() for t in tensors)


def test_fake_weights_measure_like_real_ones() -> None:
    real = measure(build("sd15"))
    with FakeTensorMode():
        fake = measure(build("sd15"))
    for a, b in zip(real.components, fake.components, strict=True):
        assert (a.weights, a.groupings, a.cast, a.lacks) == (b.weights, b.groupings, b.cast, b.lacks)


def test_the_order_of_eviction_is_the_class_s_less_what_is_absent() -> None:
    model = measure(build("wan"))
    assert model.offload_order == ("text_encoder", "transformer", "vae")
    assert model.class_name == "WanPipeline"
    assert dict(model.versions)["torch"] == torch.__version__


def test_a_name_repeated_in_the_order_counts_once() -> None:
    pipe = OneComponent(vae=torch.nn.Linear(2, 2), unet=torch.nn.Linear(2, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OneComponent, "model_cpu_offload_seq", "text_encoder->vae->unet->vae")
        assert measure(pipe).offload_order == ("vae", "unet")


def test_a_class_without_an_order_has_none() -> None:
    pipe = OneComponent(part=torch.nn.Linear(2, 2), tokenizer=object())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OneComponent, "model_cpu_offload_seq", None)
        model = measure(pipe)
    assert model.offload_order == ()
    assert [c.name for c in model.components] == ["part"]
    assert model.component("part").library == "other"


def test_components_that_never_leave_the_device_are_named() -> None:
    pipe = OneComponent(safety_checker=torch.nn.Linear(2, 2))
    pipe._exclude_from_cpu_offload = ["safety_checker", "absent"]  # type: ignore[attr-defined]
    assert measure(pipe).never_offloaded == measure(pipe).never_sequential == ("safety_checker",)


def test_the_chain_of_model_offload_takes_an_excluded_component_and_sequential_offload_does_not() -> None:
    pipe = OneComponent(part=torch.nn.Linear(2, 2))
    pipe._exclude_from_cpu_offload = ["part"]  # type: ignore[attr-defined]
    assert "part" in measure(pipe).offload_order
    assert measure(pipe).never_offloaded == ()
    assert measure(pipe).never_sequential == ("part",)


def test_one_module_under_two_names_is_counted_once() -> None:
    shared = torch.nn.Linear(4, 4)
    model = measure(OneComponent(first=shared, second=shared))
    assert model.size == 4 * (16 + 4)
    assert model.component("second").weights == ()
    assert "shares weights with first" in (model.component("second").lack("own_weights") or "")
    assert "shares weights with second" in (model.component("first").lack("own_weights") or "")


def test_tied_empty_and_non_persistent_tensors() -> None:
    module = torch.nn.Module()
    module.one = torch.nn.Linear(3, 3, bias=False)
    module.two = torch.nn.Linear(3, 3, bias=False)
    module.two.weight = module.one.weight
    module.register_buffer("empty", torch.zeros(0))
    module.register_buffer("table", torch.zeros(5, dtype=torch.int64), persistent=False)
    found = of(module)
    assert [(w.name, w.numel, w.dtype, w.buffer) for w in found.weights] == [
        ("one.weight", 9, "float32", False),
        ("table", 5, "int64", True),
    ]


def test_t5_xxl_counts_its_tied_embedding_once() -> None:
    found = of(full_size("t5"))
    assert found.size / GIB == pytest.approx(8.87, abs=0.005)
    assert found.unmatched == found.size


def test_wan_keeps_some_modules_in_float32() -> None:
    found = of(full_size("wan"))
    kept = sum(w.numel for w in found.weights if w.dtype == "float32" and not w.buffer)
    assert kept / sum(w.numel for w in found.weights) == pytest.approx(0.002, abs=0.0005)
    assert found.dtype == "bfloat16"


def test_sd3_s_position_table_is_a_buffer() -> None:
    (table,) = [w for w in of(full_size("sd3")).weights if w.buffer]
    assert table.nbytes == 108 * MIB


def test_tiling_is_lacking_where_there_is_none() -> None:
    pipe = build("cogvideox")
    model = measure(pipe)
    assert model.component("vae").lack("tiling") is None
    assert "no decode()" in (model.component("transformer").lack("tiling") or "")


@pytest.mark.parametrize("kind", ["AutoencoderKLCosmos", "AsymmetricAutoencoderKL", "AutoencoderKLTemporalDecoder"])
def test_vaes_without_working_tiling_say_so(kind: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert kind in (of(getattr(diffusers, kind)()).lack("tiling") or "")


def test_hooks_of_another_diffusers_are_told_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version may name differently what it keeps for itself."""
    monkeypatch.setattr(StateManager, "__init__", lambda self, *_, **__: self.__dict__.update(_state_cache={}))
    part = of(build("flux").transformer)
    assert "_init_kwargs" in (part.lack("taylorseer") or "")
    assert part.cache("taylorseer") is None
    assert part.cache("pyramid_attention_broadcast") is not None
    assert part.weights
