"""Prompts that come again: what runs, what is noticed, what it costs, and who is refused."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from time import sleep
from typing import Any

import diffusers
import pytest
import torch

from memplan.errors import BadInput
from memplan.faces.api import named
from memplan.faces.report.bill import bill as shown
from memplan.facts import Facts
from memplan.probes.pipeline.prompts import lacks
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import parse
from memplan.run import OnCall, Run
from memplan.simulator import simulate
from memplan.strategies import PromptReuse
from tests.conformance.device import Device
from tests.faces import small
from tests.measured_facts import facts_of
from tests.pipelines import EVERY_FAMILY, build, inputs
from tests.pipelines.loras import CLIP, add, saved, with_lora
from tests.pipelines.parts import TEXT_TOKENS
from tests.some import some
from tests.test_strategy_laws import picture


class Counted:
    """How often the text encoders of a pipeline have run."""

    def __init__(self, pipe: Any) -> None:
        self.times = 0
        for name, part in pipe.components.items():
            if isinstance(part, torch.nn.Module) and name.startswith("text_encoder"):
                part.register_forward_pre_hook(self._one)

    def _one(self, *_: Any) -> None:
        self.times += 1

    def during(self, act: Callable[[], Any]) -> int:
        before = self.times
        act()
        return self.times - before


def prepared(family: str = "flux", kept: int = 16) -> tuple[Any, Counted]:
    pipe = build(family)
    counted = Counted(pipe)
    PromptReuse(kept=kept).apply(pipe, "cpu")
    return pipe, counted


# ---- what runs -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some(EVERY_FAMILY, "flux", "sd15"))
def test_a_prompt_that_comes_again_is_not_encoded_and_the_picture_is_the_same(family: str) -> None:
    pipe = build(family)
    if [*lacks(pipe)]:
        pytest.skip("refused")
    expected, counted = picture(pipe, family), Counted(pipe)
    undo = PromptReuse().apply(pipe, "cpu")
    assert counted.during(lambda: picture(pipe, family)) > 0
    again: list[torch.Tensor] = []
    assert counted.during(lambda: again.append(picture(pipe, family))) == 0
    assert torch.equal(again[0], expected)
    undo()
    assert counted.during(lambda: picture(pipe, family)) > 0


def test_seeds_and_steps_may_change_and_words_may_not() -> None:
    pipe, counted = prepared()
    first = picture(pipe, "flux")
    other = inputs("flux", seed=1) | {"num_inference_steps": 1}
    assert counted.during(lambda: pipe(**other)) == 0
    assert counted.during(lambda: pipe(**inputs("flux") | {"prompt": "a large dog"})) == 2
    assert counted.during(lambda: pipe(**inputs("flux") | {"prompt": ["a small dog"] * 2})) == 2
    assert torch.equal(picture(pipe, "flux"), first)


def test_the_least_recently_used_goes_first() -> None:
    pipe, counted = prepared(kept=2)
    calls = {word: partial(pipe, **inputs("flux") | {"prompt": word}) for word in "abc"}
    assert [counted.during(calls[word]) for word in "abacab"] == [2, 2, 0, 2, 0, 2]


def test_what_is_kept_is_not_what_the_pipeline_may_write_into() -> None:
    pipe, _ = prepared()
    with torch.no_grad():
        found = [pipe.encode_prompt("a dog", device="cpu", max_sequence_length=8) for _ in range(3)]
        for tensor in found[1]:
            tensor.zero_()
        assert all(map(torch.equal, found[0], found[2]))
        assert all(map(torch.equal, found[0], pipe.encode_prompt("a dog", device="cpu", max_sequence_length=8)))


def test_given_embeddings_count_by_value_and_gradients_pass_through() -> None:
    pipe, counted = prepared("sd15")
    with torch.no_grad():
        embeds = [torch.full((1, 8, 32), value) for value in (0.0, 0.0, 1.0)]
        settings = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        given = [partial(pipe.encode_prompt, None, prompt_embeds=one, **settings) for one in embeds]
        assert [counted.during(one) for one in given] == [1, 0, 1]
    assert counted.during(lambda: pipe.encode_prompt("a dog", **settings)) == 2
    assert counted.during(lambda: pipe.encode_prompt("a dog", **settings)) == 2


# ---- what is noticed -------------------------------------------------------------------------------------------------
def test_clip_skip_and_the_scale_of_a_lora_are_part_of_it() -> None:
    pipe, counted = prepared("sdxl")
    calls: list[dict[str, Any]] = [{}, {"clip_skip": 0}, {}, {"cross_attention_kwargs": {"scale": 0.5}}]
    ran = [counted.during(partial(pipe, **inputs("sdxl") | extra)) for extra in calls]
    assert [times > 0 for times in ran] == [True, True, False, True]


def test_an_adapter_that_comes_changes_or_goes_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    files = [saved(with_lora(build("flux")), tmp_path / str(number)) for number in range(2)]
    pipe, counted = prepared()

    def ran() -> list[int]:
        return [counted.during(lambda: picture(pipe, "flux")) for _ in range(2)]

    assert ran() == [2, 0]
    for file in files:  # the second under the name of the first
        pipe.load_lora_weights(file)
        assert ran() == [2, 0]
        pipe.unload_lora_weights()
        assert ran() == [0, 0]  # as before it came
    add(pipe.text_encoder, CLIP)
    assert ran() == [2, 0]
    pipe.text_encoder.disable_adapters()
    assert ran() == [2, 0]


def test_a_weight_that_is_written_is_noticed() -> None:
    pipe, counted = prepared()
    picture(pipe, "flux")
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight.mul_(2)
    assert counted.during(lambda: picture(pipe, "flux")) == 2


def test_what_peft_fuses_is_noticed_also_where_the_lora_is_unloaded_then(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    file = saved(with_lora(build("flux")), tmp_path)
    pipe, counted = prepared()

    def ran() -> list[int]:
        return [counted.during(lambda: picture(pipe, "flux")) for _ in range(2)]

    assert ran() == [2, 0]
    pipe.load_lora_weights(file)
    pipe.fuse_lora(["transformer", "text_encoder"])
    pipe.unload_lora_weights()  # the same module objects with other weights
    assert ran() == [2, 0]


def test_what_is_written_behind_the_count_is_noticed() -> None:
    pipe, counted = prepared()
    weight = pipe.text_encoder.get_input_embeddings().weight
    picture(pipe, "flux")
    weight.data += 1
    assert counted.during(lambda: picture(pipe, "flux")) == 2
    pipe.text_encoder.final_layer_norm.bias.data[5] = 3.0  # smaller than what is read of it
    assert counted.during(lambda: picture(pipe, "flux")) == 2


def test_the_config_and_lists_of_settings_are_part_of_it() -> None:
    pipe, counted = prepared("sdxl")

    def ran() -> list[bool]:
        return [counted.during(lambda: picture(pipe, "sdxl")) > 0 for _ in range(2)]

    assert ran() == [True, False]
    pipe.register_to_config(force_zeros_for_empty_prompt=not pipe.config.force_zeros_for_empty_prompt)
    assert ran() == [True, False]
    pipe.text_encoder_layers = [1, 2]
    assert ran() == [True, False]
    pipe.text_encoder_layers.append(3)
    assert ran() == [True, False]
    pipe.tokenizer.padding_side = "left"
    assert ran() == [True, False]


class Projected:
    """A pipeline whose prompts go through a component that no name gives away."""

    count = 0

    def __init__(self) -> None:
        self.projection_model, self.transformer = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    @property
    def components(self) -> dict[str, Any]:
        return {"projection_model": self.projection_model, "transformer": self.transformer}

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """As AudioLDM2's."""
        Projected.count += 1
        encoded: torch.Tensor = self.projection_model(torch.full((1, 2), float(len(prompt))))
        return encoded


def test_components_are_known_by_being_called() -> None:
    pipe: Any = Projected()
    PromptReuse().apply(pipe, "cpu")

    def ran() -> int:
        before = Projected.count
        with torch.no_grad():
            pipe.encode_prompt("a dog")
        return Projected.count - before

    assert [ran(), ran()] == [1, 0]
    pipe.transformer.weight.data += 1  # which encodes nothing
    assert ran() == 0
    pipe.projection_model.weight.data += 1
    assert [ran(), ran()] == [1, 0]
    assert not pipe.projection_model._forward_pre_hooks


def test_weights_that_were_made_in_inference_mode_pass_through() -> None:
    pipe: Any = Projected()
    with torch.inference_mode():
        pipe.projection_model = torch.nn.Linear(2, 2)
    PromptReuse().apply(pipe, "cpu")
    with torch.inference_mode():
        first = pipe.encode_prompt("a dog")
        assert torch.equal(pipe.encode_prompt("a dog"), first)
        pipe.projection_model.weight.mul_(2)
        assert not torch.equal(pipe.encode_prompt("a dog"), first)


class Interrupted(OrderedDict[Any, Any]):
    """Lets other threads run between whatever is done to it."""

    def __contains__(self, key: Any) -> bool:
        found = super().__contains__(key)
        sleep(0)
        return found

    def pop(self, key: Any, *others: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = super().pop(key, *others)
        sleep(0)
        return found


def test_threads_may_share_it() -> None:
    pipe: Any = Projected()
    PromptReuse(kept=1).apply(pipe, "cpu")
    pipe.encode_prompt.results = Interrupted()

    def calls(words: str) -> None:
        with torch.no_grad():
            for word in words * 50:
                assert pipe.encode_prompt(word * 2).shape == (1, 2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(calls, ["a", "bb", "ab", "ba"]))
    assert len(pipe.encode_prompt.results) == 1


def test_a_copy_of_the_pipeline_has_a_store_of_its_own() -> None:
    pipe, counted = prepared()
    picture(pipe, "flux")
    other = copy.deepcopy(pipe)
    assert other.encode_prompt.pipe is other
    with torch.no_grad():
        other.text_encoder.get_input_embeddings().weight.zero_()
        theirs = other.encode_prompt("a small dog", device="cpu", max_sequence_length=8)
        ours = pipe.encode_prompt("a small dog", device="cpu", max_sequence_length=8)
    assert not torch.equal(theirs[1], ours[1])
    assert counted.times


# ---- beside offload --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "offload", [["model_offload"], ["on_demand:text_encoder", "on_demand:text_encoder_2", "on_gpu:transformer,vae"]]
)
def test_a_repeated_prompt_moves_no_text_encoder(offload: list[str]) -> None:
    pipe = build("flux")
    facts = facts_of(pipe)
    plan = named(facts, [*offload, "prompt_reuse"])
    with Device(pipe) as device, ExitStack() as undos:
        for strategy in plan.strategies:
            undos.callback(strategy.apply(pipe, "cuda"))
        first = picture(pipe, "flux")
        held: list[dict[str, int]] = []
        device.on_op = lambda: held.append(dict(device.held))
        again = picture(pipe, "flux")
        device.on_op = lambda: None
    assert not any(now.get(name, 0) for now in held for name in ("text_encoder", "text_encoder_2"))
    assert any(now.get("transformer", 0) for now in held)
    assert torch.equal(again, first)


# ---- what it costs ---------------------------------------------------------------------------------------------------
@lru_cache
def traced() -> Facts:
    pipe, _ = prepared()  # planned as if nothing was reused
    assert "encode_prompt" not in vars(open_pipeline(pipe).pipe)
    return replace(facts_of(pipe), trace=dry_run(open_pipeline(pipe), inputs("flux")))


def test_the_dry_run_says_what_runs_within_it_and_what_it_returns() -> None:
    trace = traced().trace
    assert trace.prompted == ("text_encoder", "text_encoder_2")
    with torch.no_grad():
        result = build("flux").encode_prompt("a small dog", device="cpu", max_sequence_length=TEXT_TOKENS)
    assert trace.encoded == sum(tensor.nbytes for tensor in result)
    again = [trace.calls[step.call].component for step in trace.again.timeline]
    assert {*again} == {"", "transformer", "vae"}


def test_a_known_prompt_has_no_text_encoding_and_the_first_call_still_pays() -> None:
    facts = traced()
    offloaded = Run(facts)
    for part in facts.model.components:
        offloaded = offloaded.place(part.name, OnCall())
    before, after = simulate(offloaded), simulate(parse("prompt_reuse", facts).redraw(offloaded))
    encoders = [part for part in facts.model.components if part.name.startswith("text_encoder")]
    encoding = sum(peak.seconds for peak in before.peaks if peak.component.startswith("text_encoder"))
    back = encoders[-1].size / facts.machine.rates.to_host  # when the transformer is called
    assert encoding + back <= after.encoding < 1.02 * (encoding + back)  # beside it some of the pipeline's own ops
    assert after.seconds == pytest.approx(before.seconds - after.encoding)
    assert after.first == pytest.approx(before.first)
    assert before.traffic.to_device - after.traffic.to_device == sum(part.size for part in encoders)
    assert after.peak.memory == before.peak.memory
    assert [peak.memory for peak in after.peaks] == [peak.memory for peak in before.peaks]
    assert after.host.steady - before.host.steady == 16 * facts.trace.encoded
    assert all(not p.seconds for p in after.peaks if p.component.startswith("text_encoder"))


def test_the_bill_says_both() -> None:
    facts = small.facts()
    steps = (replace(facts.trace.timeline[0], prompted=True), *facts.trace.timeline[1:])
    facts = replace(facts, trace=replace(facts.trace, timeline=steps, encoded=1000))
    text = shown(named(facts, ["prompt_reuse", "model_offload"]))
    text = " ".join(text.split())
    assert "Time 2.21 s per call with a prompt that is kept, 3.14 s with a new one" in text


# ---- refusals --------------------------------------------------------------------------------------------------------
def test_who_is_refused() -> None:
    run = Run(traced())
    strategy = PromptReuse(("text_encoder", "text_encoder_2"))
    assert strategy.refuses(run) is None
    assert "takes all that encode_prompt() calls" in (PromptReuse(("text_encoder",)).refuses(run) or "")
    assert "kept is 1 or more" in (replace(strategy, kept=0).refuses(run) or "")
    given = replace(run.facts, trace=run.facts.trace.again)
    assert "runs no component in encode_prompt()" in (parse("prompt_reuse", given).refuses(Run(given)) or "")
    with pytest.raises(BadInput, match="no encode_prompt"):
        strategy.apply(build("modular_flux"), "cpu")


def test_pipelines_that_encode_pictures_with_their_words_are_refused() -> None:
    pictures: Any = object.__new__(diffusers.QwenImageEditPipeline)
    ((name, why),) = lacks(pictures)
    assert (name, why) == (
        "prompt_reuse",
        "encode_prompt() of QwenImageEditPipeline takes pictures beside words (image)",
    )
    ((_, why),) = lacks(build("modular_flux"))
    assert why.endswith("has no encode_prompt() whose results could be kept")
    assert list(lacks(build("wan"))) == []
