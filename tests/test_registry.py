"""The strategies that are installed, and what people type to name one."""

import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from memplan import registry
from memplan.errors import BadInput, MemplanError
from memplan.facts import Facts
from memplan.planner.label import label
from memplan.registry import ELSEWHERE, check_names, parse, parse_plan, strategies, typed
from memplan.run import Run
from memplan.strategies import (
    STRATEGIES,
    Bnb4bit,
    GroupOffload,
    LayerwiseCasting,
    ModelOffload,
    OnGpu,
    VaeSlicing,
    VaeTiling,
)
from tests.faces import small
from tests.measured_facts import facts_of
from tests.pipelines import build


@pytest.fixture(scope="module")
def flux() -> Facts:
    return facts_of(build("flux"))


def doors(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """Let these be the entry points that are installed."""
    points = [EntryPoint(f"door{i}", value, registry.DOOR) for i, value in enumerate(values)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)


def test_ours_are_installed_in_their_order() -> None:
    assert registry.strategies()[: len(STRATEGIES)] == STRATEGIES


def test_a_door_may_hold_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    doors(monkeypatch, "memplan.strategies:OnGpu")
    assert registry.strategies() == (OnGpu,)


def test_the_same_class_through_two_doors_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    doors(monkeypatch, "memplan.strategies:OnGpu", "memplan.strategies:STRATEGIES")
    assert registry.strategies() == STRATEGIES


def test_two_classes_of_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "twice.py").write_text("from memplan.strategies import OnGpu\nclass Mine(OnGpu): pass\n")
    doors(monkeypatch, "memplan.strategies:OnGpu", "twice:Mine")
    with pytest.raises(MemplanError, match=r"memplan\.strategies\.on_gpu\.OnGpu and twice\.Mine are both named on_gpu"):
        registry.strategies()
    sys.modules.pop("twice")


def test_none_installed_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    doors(monkeypatch)
    with pytest.raises(MemplanError, match=r"pip install -e \."):
        registry.strategies()


@pytest.mark.parametrize("value", ["no.such.module:Thing", "memplan.facts:GIB", "memplan.facts:Facts"])
def test_a_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    doors(monkeypatch, value)
    with pytest.raises(MemplanError, match=value):
        registry.strategies()


# ---- parse ----------------------------------------------------------------------------------------------------------
def test_settings_are_read_by_their_types(flux: Facts) -> None:
    text = "group_offload:transformer,level=block_level,blocks=2,stream=true,low_cpu_mem=no"
    assert parse(text, flux) == GroupOffload("transformer", "block_level", 2, stream=True)
    assert parse("group_offload: vae , blocks = none", flux) == GroupOffload("vae")


def test_what_is_left_out_is_read_from_the_facts(flux: Facts) -> None:
    assert parse("group_offload", flux) == GroupOffload("transformer")
    assert parse("layerwise_casting", flux) == LayerwiseCasting("transformer")
    assert parse("vae_tiling", flux) == VaeTiling("vae")
    assert parse("model_offload", flux) == ModelOffload(("vae", "text_encoder", "text_encoder_2", "transformer"))


def test_a_text_encoder_is_cast_as_it_was_measured(flux: Facts) -> None:
    strategy = parse("layerwise_casting:text_encoder_2,storage=float8_e5m2", flux)
    skip = flux.model.component("text_encoder_2").cast_skip
    assert skip
    assert strategy == LayerwiseCasting("text_encoder_2", "float8_e5m2", skip)


def test_a_plan_is_typed_as_one_text(flux: Facts) -> None:
    text = "layerwise_casting:transformer + group_offload:text_encoder,transformer,stream=true + vae_tiling"
    encoders = GroupOffload("text_encoder", stream=True), GroupOffload("transformer", stream=True)
    assert parse_plan(text, flux) == (LayerwiseCasting("transformer"), *encoders, VaeTiling("vae"))
    assert parse_plan("model_offload", flux) == (parse("model_offload", flux),)
    with pytest.raises(BadInput, match="no component 'unet'"):
        parse_plan("group_offload:transformer,unet", flux)


@pytest.mark.parametrize(
    "text",
    [
        "layerwise_casting:transformer +\n  group_offload:text_encoder,\n    transformer,stream=true",
        "layerwise_casting:transformer\n+ group_offload:\n\ttext_encoder,transformer,\n stream=true\n",
        "  layerwise_casting:transformer  +  group_offload: text_encoder, transformer, stream = true",
        "layerwise_casting:transformer +group_offload:text_encoder,transformer,stream=true",
    ],
)
def test_a_plan_may_be_pasted_as_it_was_wrapped(flux: Facts, text: str) -> None:
    plain = "layerwise_casting:transformer + group_offload:text_encoder,transformer,stream=true"
    check_names(text)
    assert parse_plan(text, flux) == parse_plan(plain, flux)


def test_a_setting_may_be_pasted_as_it_was_wrapped() -> None:
    whole, facts = "layerwise_casting:transformer,skip=a.b/layers.37", small.facts()
    assert parse_plan(whole.replace("/", "/\n      "), facts) == parse_plan(whole, facts)


@pytest.mark.parametrize("text", ["", " \n", "everything on the\n   GPU"])
def test_the_empty_plan_is_everything_on_the_gpu(flux: Facts, text: str) -> None:
    check_names(text)
    assert parse_plan(text, flux) == ()


@pytest.mark.parametrize("text", ["vae_tiling + ", "+ vae_tiling", "vae_tiling + + model_offload"])
def test_half_a_plan_is_no_plan(text: str) -> None:
    with pytest.raises(BadInput, match=r'a technique is missing beside a "\+" of the plan'):
        check_names(text)


def test_the_plan_that_does_nothing_can_be_typed(flux: Facts) -> None:
    shown = label((), flux)
    check_names(shown)
    assert parse_plan(shown, flux) == ()


ODD = ("a, b", "x/y", "50%", " + ", "^(norm|proj)\\.\\d+$", "a=b", "größe", "%2C", "tab\t", "two  spaces", "+")
"""Names and patterns with what has a meaning in a plan."""
MANY = 100
"""Of how many variants each label is read."""
TUPLES = ((), ("wo",), ("blocks.0", "proj_out"), ODD)


def with_tuples(strategy: Any) -> Iterator[Any]:
    """The same with other values of each setting that holds several, or text."""
    yield strategy
    for field in fields(strategy):
        if field.name in ("spare", "skip"):
            yield from (replace(strategy, **{field.name: value}) for value in TUPLES)
        elif field.name in ("disk", "modules"):
            yield from (replace(strategy, **{field.name: value}) for value in ODD)


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_a_label_is_read_as_the_same_plan(cls: Any, flux: Facts) -> None:
    found = [other for variant in cls.variants(flux) for other in with_tuples(variant)]
    found = found[:: len(found) // MANY + 1]
    for strategy in found:
        assert parse(typed(strategy, flux), flux) == strategy
        expected = () if strategy.name == "on_gpu" else (strategy,)
        assert parse_plan(label([strategy], flux), flux) == expected
        assert parse_plan(label([strategy, VaeSlicing("vae")], flux), flux) == (*expected, VaeSlicing("vae"))
    assert found or cls.name in ("set_aside", "attention_slicing", "vae_frame_batching")


def test_what_a_library_spares_is_left_out_and_what_it_does_not_is_said(flux: Facts) -> None:
    both = [Bnb4bit("text_encoder_2", spare=("wo",)), Bnb4bit("transformer")]
    assert label(both, flux) == "bnb_4bit:text_encoder_2,transformer"
    assert label([Bnb4bit("text_encoder_2")], flux) == "bnb_4bit:text_encoder_2,spare="
    some = Bnb4bit("text_encoder_2", spare=("wo", "block.0"))
    assert label([some], flux) == "bnb_4bit:text_encoder_2,spare=wo/block.0" == str(some)
    assert parse("bnb_4bit:text_encoder_2, spare = wo / block.0", flux) == some


def test_what_is_shown_can_be_typed(flux: Facts) -> None:
    strategy = GroupOffload("transformer", "block_level", 1, stream=True)
    assert str(strategy) == "group_offload:transformer,level=block_level,blocks=1,stream=true"
    assert parse(str(strategy), flux) == strategy


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("bnb_4bit,double_quant=false", r"settings stand behind a colon: say bnb_4bit:double_quant=false"),
        ("grup_offload", r"no strategy 'grup_offload'\. Did you mean group_offload\?"),
        ("", "no strategy ''"),
        ("on_gpu:transfomer", r"no component 'transfomer'\. Did you mean transformer\?"),
        (
            "group_offload:speed=9",
            r"no setting 'speed'\. It has: component \(str\), level \(str\), blocks \(int \| None\)",
        ),
        ("group_offload:levels=leaf_level", r"no setting 'levels'\. Did you mean level\? It has"),
        ("group_offload:stream=perhaps", "stream='perhaps' is not bool"),
        ("group_offload:blocks=few", r"blocks='few' is not int \| None"),
    ],
)
def test_mistakes_are_answered_with_what_there_is(flux: Facts, text: str, answer: str) -> None:
    with pytest.raises(BadInput, match=answer):
        parse(text, flux)


def test_a_setting_that_must_be_given_is_shown_with_a_value_that_can_be() -> None:
    facts = small.facts()
    with pytest.raises(
        BadInput, match=r"streamed must be given, as in (partial_residency:transformer,streamed=\d)$"
    ) as e:
        parse("partial_residency:transformer", facts)
    assert not parse(str(e.value).rpartition(" ")[2], facts).refuses(Run(facts))
    with pytest.raises(BadInput, match=r"as in partial_residency:vae,streamed=…$"):
        parse("partial_residency:vae", facts)  # which is too small to be weighed


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nf4:text_encoder", "say bnb_4bit$"),
        ("FP8:transformer", "say layerwise_casting or fp8_weight_only or fp8_dynamic$"),
        ("enable-model-cpu-offload", "say model_offload$"),
        ("gguf:transformer", r"transformer=FILE\.gguf"),
        ("fp16", "--dtype float16"),
    ],
)
def test_words_of_others_lead_to_ours(word: str, said: str) -> None:
    with pytest.raises(BadInput, match=f"has no strategy {word.partition(':')[0]!r}: .*{said}"):
        parse(word, small.facts())


def test_no_word_of_others_is_a_name_of_ours() -> None:
    names = {cls.name for cls in strategies()}
    assert not names & {word for cls in strategies() for word in (*cls.known_as, *ELSEWHERE)}
