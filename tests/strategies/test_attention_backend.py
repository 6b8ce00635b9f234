"""What only another attention kernel knows: whom it refuses and in which words, what it holds, and the way back."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch as library
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

import memplan
from memplan.applier import apply
from memplan.catalogue.gpu_names import find_card
from memplan.errors import BadInput
from memplan.facts import BACKEND, COMPUTED, Call, Facts
from memplan.planner import recommend
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import switches
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategies import AttentionBackend, GroupOffload, OnGpu
from tests.accuracy.measured import component_peaks
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some
from tests.test_strategy_laws import picture

FAMILIES = some(("flux", "wan", "qwenimage"), "flux")
BACKENDS = vars(sys.modules[AttentionBackend.__module__])["BACKENDS"]
PACKAGES = (("flash-attn", "2.8.3"), ("flash-attn-3", "3.0.0"), ("sageattention", "2.2.0"), ("xformers", "0.0.31"))


@pytest.fixture(autouse=True)
def whole_process() -> Iterator[None]:
    """Whatever a test does, the process computes with what it did before."""
    before = _AttentionBackendRegistry._active_backend
    yield
    assert _AttentionBackendRegistry._active_backend is before


def latents(family: str) -> dict[str, Any]:
    """A call without a decode."""
    return inputs(family) | {"output_type": "latent"}


def chosen(part: Any) -> set[Any]:
    """What the processors of `part` say that they compute with."""
    return {p._attention_backend for p in part.attn_processors.values() if hasattr(p, "_attention_backend")}


def on(facts: Facts, card: str = "RTX 4090", packages: tuple[tuple[str, str], ...] = PACKAGES) -> Facts:
    """The same facts on a card in this machine, with these packages."""
    gpu = replace(find_card(card).gpu(), source="nvml")
    return replace(facts, machine=replace(facts.machine, gpu=gpu, packages=packages))


def for_another(facts: Facts, card: str = "RTX 4090") -> Facts:
    """The same facts for a card of the catalogue, where nothing is installed here."""
    return replace(facts, machine=replace(facts.machine, gpu=find_card(card).gpu(), packages=()))


@lru_cache
def known(family: str) -> Facts:
    """Facts of a small pipeline of this family."""
    return facts_of(build(family))


def traced(pipe: Any, family: str, *backends: str, **settings: Any) -> Any:
    """The dry run of a call, and of the same call with each of `backends`."""
    asked = switches([f"attention_backend:transformer,backend={name}" for name in backends])
    return dry_run(open_pipeline(pipe), latents(family), switches=asked, **settings)


def moved(call: Call) -> int:
    """Bytes that a call reads and writes."""
    return sum(segment.traffic * segment.repeat for segment in call.segments)


def refusal(facts: Facts, backend: str, component: str = "transformer") -> str:
    """The sentence with which it refuses."""
    return AttentionBackend(component, backend).refuses(Run(facts)) or ""


# ---- the deed --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["native", "_native_math", "_native_flash"])
def test_the_picture_stays_and_undo_brings_all_back(family: str, backend: str) -> None:
    pipe = build(family)
    expected, before = picture(pipe, family), [dict(vars(p)) for p in pipe.transformer.attn_processors.values()]
    undo = AttentionBackend("transformer", backend).apply(pipe, "cpu")
    assert chosen(pipe.transformer) == {AttentionBackendName(backend)}
    assert torch.allclose(picture(pipe, family), expected, atol=1e-3)
    undo()
    assert [dict(vars(p)) for p in pipe.transformer.attn_processors.values()] == before
    assert torch.equal(picture(pipe, family), expected)


@pytest.mark.slow
def test_flex_makes_the_same_picture() -> None:
    pipe = build("flux")
    expected = picture(pipe, "flux")
    with apply([AttentionBackend("transformer", "flex")], pipe, "cpu"):
        assert torch.allclose(picture(pipe, "flux"), expected, atol=1e-3)


def test_a_choice_of_the_users_comes_back() -> None:
    pipe = build("flux")
    AttentionBackend("transformer", "_native_flash").apply(pipe, "cpu")
    undo = AttentionBackend("transformer", "_native_math").apply(pipe, "cpu")
    assert chosen(pipe.transformer) == {AttentionBackendName._NATIVE_MATH}
    undo()
    assert chosen(pipe.transformer) == {AttentionBackendName._NATIVE_FLASH}


def test_the_code_does_the_same() -> None:
    applied, typed, strategy = build("flux"), build("flux"), AttentionBackend("transformer", "_native_math")
    strategy.apply(applied, "cpu")
    exec("\n".join(strategy.code("cpu")), {"pipe": typed})
    assert chosen(applied.transformer) == chosen(typed.transformer) == {AttentionBackendName._NATIVE_MATH}
    assert torch.equal(picture(applied, "flux"), picture(typed, "flux"))


@pytest.mark.parametrize(("component", "words"), [("transformer", "flash-attn"), ("vae", "diffusers' dispatcher")])
def test_what_cannot_be_applied_changes_nothing(component: str, words: str) -> None:
    pipe = build("flux")
    with pytest.raises(BadInput, match=words):
        AttentionBackend(component, "flash").apply(pipe, "cpu")
    assert chosen(pipe.transformer) == {None}


def test_the_process_keeps_its_own_also_during_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    active: list[Any] = []
    for name in ("_check_attention_backend_requirements", "_maybe_download_kernel_for_backend"):
        monkeypatch.setattr(library, name, active.append)
    monkeypatch.setattr(_AttentionBackendRegistry, "set_active_backend", active.append)
    pipe = build("flux")
    undo = AttentionBackend("transformer", "flash_hub").apply(pipe, "cpu")
    assert chosen(pipe.transformer) == {AttentionBackendName.FLASH_HUB}
    undo()
    assert active == [AttentionBackendName.FLASH_HUB] * 2  # one check, one download


def test_a_download_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> None:
        raise OSError("no route to the Hub")

    monkeypatch.setattr(library, "_check_attention_backend_requirements", lambda _: None)
    monkeypatch.setattr(library, "_maybe_download_kernel_for_backend", fails)
    pipe = build("flux")
    with pytest.raises(BadInput, match="cannot compute with sage_hub: no route"):
        AttentionBackend("transformer", "sage_hub").apply(pipe, "cpu")
    assert chosen(pipe.transformer) == {None}


def test_an_attention_that_is_split_over_devices_takes_no_other_kernel() -> None:
    pipe = build("flux")
    for processor in pipe.transformer.attn_processors.values():
        processor._parallel_config = object()
    with pytest.raises(BadInput, match="context parallelism"):
        AttentionBackend("transformer", "_native_math").apply(pipe, "cpu")


def test_versions_are_those_that_the_installed_diffusers_asks_for() -> None:
    asked = {needs.package: needs.version for needs in BACKENDS.values() if needs and needs.package}
    assert asked["flash-attn"] == library._REQUIRED_FLASH_VERSION
    assert asked["sageattention"] == library._REQUIRED_SAGE_VERSION
    assert asked["xformers"] == library._REQUIRED_XFORMERS_VERSION
    check = inspect.getsource(library._check_attention_backend_requirements)
    assert f'is_kernels_version(">=", "{asked["kernels"]}")' in check


def test_it_goes_with_offloading() -> None:
    pipe = build("flux")
    expected = picture(pipe, "flux")
    with apply([GroupOffload("transformer"), AttentionBackend("transformer", "_native_math")], pipe, "cpu"):
        assert torch.allclose(picture(pipe, "flux"), expected, atol=1e-3)
    assert torch.equal(picture(pipe, "flux"), expected)


# ---- what it holds ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["_native_math", "flex"])
def test_the_peak_is_that_of_a_real_run(family: str, backend: str) -> None:
    pipe = build(family)
    trace = traced(pipe, family, backend, device="cpu")
    plain = next(c for c in trace.calls if c.component == "transformer")
    other = trace.alternative(plain, frozenset({f"{BACKEND}:{backend}"}))
    AttentionBackend("transformer", backend).apply(pipe, "cpu")
    pipe(**latents(family))  # what is compiled is compiled now
    measured = component_peaks(pipe, latents(family))["transformer", "forward"]
    assert other.variant
    assert other.peak_segment.peak == pytest.approx(measured, rel=0.01)


@pytest.mark.slow
def test_kernels_hold_what_they_hold_on_a_card() -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    names = ("native", "_native_flash", "_native_cudnn", "_native_math", "flash", "flash_hub", "xformers", "sage")
    trace = traced(pipe, "flux", *names)
    plain = next(c for c in trace.calls if c.component == "transformer")
    made = {name: trace.alternative(plain, frozenset({f"{BACKEND}:{name}"})) for name in names}
    assert all(c.variant for c in made.values())
    assert len({made[n].segments for n in ("native", "_native_flash", "flash", "flash_hub", "xformers")}) == 1
    assert made["native"].segments == plain.segments
    assert all(moved(made[name]) > moved(plain) for name in ("_native_cudnn", "_native_math", "sage"))
    assert len({made[name].flops for name in names if name != "sage"}) == 1  # it pads heads of 16 to 64
    assert not trace.assumptions  # nothing falls back


def test_a_pipeline_that_computes_so_already_is_planned_so() -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    native = traced(pipe, "flux").calls
    for processor in pipe.transformer.attn_processors.values():
        processor._attention_backend = AttentionBackendName.SAGE
    (sage,) = (c for c in traced(pipe, "flux").calls if c.component == "transformer")
    assert sage.activations > next(c for c in native if c.component == "transformer").activations


@pytest.mark.slow
def test_two_ways_that_are_asked_for_are_followed_together() -> None:
    plan = ["attention_backend:transformer,backend=_native_cudnn + compute_dtype:transformer,dtype=float16"]
    trace = dry_run(open_pipeline(build("flux", dtype=torch.bfloat16)), latents("flux"), switches=switches(plan))
    ways = {f"{BACKEND}:_native_cudnn", f"{COMPUTED}:float16"}
    plain = next(c for c in trace.calls if c.component == "transformer")
    made = [trace.alternative(plain, frozenset(chosen)) for chosen in ([], *([way] for way in ways), ways)]
    assert [set(call.variant) for call in made] == [set(), *({way} for way in ways), ways]
    assert len({moved(call) for call in made}) == len(made)


# ---- who may ---------------------------------------------------------------------------------------------------------
def test_variants_are_what_is_installed() -> None:
    facts = known("flux")
    bare = [s.backend for s in AttentionBackend.variants(on(facts, packages=()))]
    assert bare == ["_native_cudnn"]
    there = [s.backend for s in AttentionBackend.variants(on(facts))]
    assert there == ["_native_cudnn", "flash", "_flash_3", "sage", "xformers"]
    assert not list(AttentionBackend.variants(on(known("sdxl"))))


@pytest.mark.parametrize(
    ("backend", "card", "words"),
    [
        (
            "flash_attention_2",
            "RTX 4090",
            "does not follow flash_attention_2: backend is one of native, _native_flash,",
        ),
        ("flash", "RTX 2080 Ti", "with flash needs compute capability 8.0, and NVIDIA GeForce RTX 2080 Ti has 7.5"),
        ("_native_cudnn", "RTX 2080 Ti", "with _native_cudnn needs compute capability 8.0"),
        ("_flash_3", "RTX 4090", "with _flash_3 needs compute capability 9.0, and NVIDIA GeForce RTX 4090 has 8.9"),
        ("sage", "B200", "needs compute capability 8.0 or 8.6 or 8.9 or 9.0 or 12.0, and"),
        ("xformers", "RX 7900 XTX", "with xformers does not run on AMD Radeon RX 7900 XTX: it needs one of cuda"),
        ("sage_hub", "RTX 4090", "with sage_hub needs kernels, which is not installed"),
        ("flash", "RTX 4090", "attention_backend needs a dry run with flash: price the plan that names it"),
    ],
)
def test_refuses(backend: str, card: str, words: str) -> None:
    assert words in refusal(on(known("flux"), card), backend)


def test_refuses_what_is_not_installed() -> None:
    words = refusal(on(known("flux"), packages=()), "flash")
    assert words == (
        'attention_backend with flash needs flash-attn, which is not installed: pip install "flash-attn>=2.6.3"'
    )


def test_what_another_machine_has_installed_is_assumed() -> None:
    facts = for_another(known("flux"))
    offered = [s.backend for s in AttentionBackend.variants(facts)]
    assert offered == ["_native_cudnn", "flash", "_flash_3", "sage", "xformers"]
    assert "needs a dry run with flash" in refusal(facts, "flash")
    assert "needs compute capability 9.0" in refusal(facts, "_flash_3")
    said = AttentionBackend("transformer", "flash").assumes(facts)
    assert said == ("transformer: flash needs flash-attn 2.6.3 or newer there",)
    for name in ("native", "_native_cudnn"):
        assert not AttentionBackend("transformer", name).assumes(facts)
    assert not AttentionBackend("transformer", "flash").assumes(on(known("flux")))


@pytest.mark.parametrize(("family", "component"), [("sdxl", "unet"), ("sd3", "transformer"), ("flux", "vae")])
def test_refuses_models_beside_the_dispatcher(family: str, component: str) -> None:
    kind = known(family).model.component(component).class_name
    said = refusal(known(family), "native", component)
    assert said == f"the attention of {kind} does not go through diffusers' dispatcher"


def test_a_model_that_passes_masks_is_refused() -> None:
    pipe = build("hunyuan_video", dtype=torch.bfloat16)
    facts = replace(on(facts_of(pipe)), trace=traced(pipe, "hunyuan_video", "flash", "_native_efficient"))
    assert refusal(facts, "flash") == (
        "transformer fails with this attention: `attn_mask` is not supported for flash-attn 2."
    )
    assert refusal(facts, "_native_efficient") == ""


def test_where_pytorch_would_fall_back_it_says_so_and_named_kernels_are_refused() -> None:
    pipe, names = build("flux", dtype=torch.bfloat16), ("native", "_native_efficient", "_native_math", "xformers")
    trace = traced(pipe, "flux", *names, capability=(7, 0))
    said = [s for s in trace.assumptions if s.startswith("transformer: all scores of attention are held at once")]
    assert len(said) == 1
    facts = replace(on(facts_of(pipe), "RTX 2080 Ti"), trace=trace)
    for name in ("_native_efficient", "xformers"):
        assert "does not take bfloat16" in refusal(facts, name) or "takes no bfloat16" in refusal(facts, name)
    assert refusal(facts, "native") == refusal(facts, "_native_math") == ""


# ---- what it costs ---------------------------------------------------------------------------------------------------
def test_eight_bits_are_not_exact() -> None:
    facts = on(known("flux"))
    losses = {b: simulate(AttentionBackend("transformer", b).redraw(Run(facts))).loss for b in ("sage", "flash")}
    assert losses["sage"].word == "near-lossless"
    assert losses["flash"].word == "exact"


@pytest.mark.slow
def test_it_is_priced_for_those_who_name_it() -> None:
    pipe, given = build("flux", dtype=torch.bfloat16), {k: v for k, v in inputs("flux").items() if k != "generator"}
    card = memplan.Target(gpu="RTX 4090", ram=32)
    plain = memplan.price(pipe, [], target=card, **given)
    named = memplan.price(pipe, ["attention_backend:transformer,backend=_native_cudnn"], target=card, **given)
    assert named.fits
    assert named.bill.seconds > plain.bill.seconds  # its copies


def test_it_is_never_picked() -> None:
    facts = on(facts_of(build("flux"), ways={"transformer": [(f"{BACKEND}:flash",)]}))
    found = recommend(facts, [AttentionBackend, OnGpu])
    assert not any(s.name == "attention_backend" for plan in found.front for s in plan.strategies)
    (left,) = (d for d in found.dropped if "backend=flash" in d.what)
    assert left.reason.endswith("to have it all the same, name attention_backend")
