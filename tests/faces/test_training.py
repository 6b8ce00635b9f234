"""Training steps at the command line and in Python."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

import memplan
from memplan import BadInput, Facts, Recommendation, Target, Training
from memplan.__main__ import main
from memplan.faces.api import facts
from memplan.faces.history.expected import expected
from memplan.faces.report import code
from memplan.facts import GIB
from memplan.planner import recommend as weighed
from memplan.planner import seated
from memplan.registry import strategies
from memplan.strategies import Bnb4bit, Bnb8bit, GradientCheckpointing, Int8WeightOnly, ModelOffload
from memplan.strategy import Strategy
from tests.accuracy.steps import ways
from tests.pipelines import build

CALL: dict[str, Any] = {"height": 32, "width": 32, "max_sequence_length": 32}
TARGET = Target(vram=1, ram=4)


@lru_cache(maxsize=1)
def found() -> Recommendation:
    train = Training("full", batch=16, optimizer="adamw", accumulate=2, ema=True)
    return weighed(facts(build("flux"), CALL, target=TARGET, train=train, switches=ways()), strategies())


def on_a_card_of(vram: int) -> Facts:
    """The facts of a card that has so many bytes."""
    known = found().facts
    assert known.machine.gpu is not None
    return replace(known, machine=replace(known.machine, gpu=replace(known.machine.gpu, total=vram, free=vram)))


def intervals(answer: Recommendation, preference: str) -> list[int]:
    plan = answer.pick(preference)
    assert plan is not None
    return [s.interval for s in plan.strategies if isinstance(s, GradientCheckpointing)]


@pytest.mark.slow
def test_each_phase_has_its_peak() -> None:
    bill = seated(found().facts, ()).bill
    peaks = {peak.phase: peak for peak in bill.peaks}
    assert list(peaks) == [
        "forward and backward",
        "accumulating",
        "optimizer step",
        "averaging weights",
        "between steps",
    ]
    weights = found().facts.model.size
    trained = sum(weight.nbytes for weight in found().facts.trace.trained)
    assert all(peak.weights == weights and peak.states == 3 * trained for peak in bill.peaks)
    assert peaks["between steps"].activations == 0
    assert peaks["optimizer step"].activations == 2 * trained
    assert peaks["accumulating"].activations >= trained + peaks["forward and backward"].activations / 2
    assert bill.seconds > 0


def test_the_largest_interval_that_fits_is_picked() -> None:
    """Each interval fits where a smaller card is given, until none does."""
    plain = seated(found().facts, ())
    assert found().facts.trace.ways("transformer") == {"checkpointed:1", "checkpointed:2", "checkpointed:4"}
    plans = {i: seated(found().facts, [GradientCheckpointing("transformer", i)]) for i in (1, 2, 4)}
    needed = [plans[i].bill.peak.memory.required for i in (1, 2, 4)]
    assert needed == sorted(needed)
    assert needed[-1] < plain.bill.peak.memory.required
    assert plans[1].bill.seconds > plans[2].bill.seconds > plans[4].bill.seconds > plain.bill.seconds
    assert intervals(found(), "speed") == []
    answer = weighed(on_a_card_of(int(needed[1] * 1.03)), strategies())
    assert intervals(answer, "speed") == [2]


def test_what_is_for_calls_is_refused_in_a_sentence() -> None:
    with pytest.raises(BadInput, match="model_offload is for calls of a pipeline, and this is a training step"):
        seated(found().facts, [ModelOffload(("transformer",))])
    call = replace(found().facts, training=None)
    with pytest.raises(BadInput, match="gradient_checkpointing is for training, and this is a call"):
        seated(call, [GradientCheckpointing("transformer", 2)])


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("lora", r'train is \'lora\': write train=memplan.Training\("lora"\)'),
        (Training("some"), "no kind of training 'some': use one of lora, full"),
        (Training(autocast="bf16"), "no dtype of autocast 'bf16': use one of bfloat16, float16"),
        (Training(optimizer="adam"), "no optimizer 'adam': use one of adamw, adamw8bit"),
        (Training(accumulate=0), "accumulate=0 trains nothing"),
    ],
)
def test_what_is_no_training_is_told_how_to_be_written(train: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        memplan.recommend("sd1.5", target=TARGET, train=train)


class Narrow(torch.nn.Module):
    """A model without blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(8, 8)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.net(hidden)


def test_a_module_is_trained_with_what_it_is_given_and_one_without_blocks_as_it_is() -> None:
    answer = memplan.recommend(Narrow(), target=TARGET, train=Training("full"), hidden=torch.randn(6, 8))
    assert ("hidden", "tensor(6, 8)") in answer.facts.trace.arguments
    words = "Narrow has no list of blocks (ModuleList), of which some could be checkpointed"
    assert f"model is trained as it is: {words}" in answer.facts.assumptions
    assert f"model cannot be checkpointed: {words}" in {dropped.reason for dropped in answer.dropped}
    assert [plan.strategies for plan in answer.front] == [()]


def test_a_component_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match="no component 'unet' to train: name one of"):
        memplan.recommend(build("flux"), target=TARGET, train=Training(component="unet"), **CALL)


@pytest.mark.slow
def test_the_command_line_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "cache"))
    build("sd15").save_pretrained(tmp_path / "small")
    typed = ["recommend", str(tmp_path / "small"), "--vram", "1", "--ram", "4", "--height", "32", "--width", "32"]
    assert main([*typed, "--train", "lora", "--batch", "4", "--rank", "4", "--optimizer", "adamw8bit", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [phase["phase"] for phase in answer["plans"][0]["phases"]][-1] == "between steps"
    assert main([*typed, "--train", "lora", "--batch", "4", "--rank", "4", "--optimizer", "sgd"]) == 0
    text = capsys.readouterr().out
    assert "Training   a LoRA of rank 4, sgd; batches of 4" in text
    assert answer["plans"][0]["peak"]["required"] < GIB


def test_options_of_training_need_to_know_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "sd1.5", "--rank", "4"]) == 2
    assert "--rank is for training: say --train lora or --train full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("strategy", "kind", "words"),
    [
        (Bnb4bit("transformer"), "full", "stored in bitsandbytes' 4 bits, and have no gradients: train adapters"),
        (Int8WeightOnly("transformer"), "lora", "stored in the format of .*Tensor, whose backward is not followed"),
        (Bnb8bit("transformer"), "lora", "stored in bitsandbytes' 8 bits, whose backward is not followed"),
    ],
)
def test_formats_that_are_not_trained_are_refused(strategy: Strategy, kind: str, words: str) -> None:
    pipe = build("flux")
    strategy.apply(pipe, "cpu")
    with pytest.raises(BadInput, match=words):
        memplan.price(pipe, "", target=TARGET, train=Training(kind, batch=1), **CALL)


@pytest.mark.slow
def test_a_plan_for_training_is_applied_to_a_pipeline_in_memory() -> None:
    pipe = build("flux")
    train, part = Training("lora", batch=2, rank=4), pipe.transformer
    settings: dict[str, Any] = {"target": TARGET, "device": "cpu", "train": train, "force": True}
    with memplan.auto_optimize(pipe, "gradient_checkpointing:transformer,interval=2", **settings, **CALL) as done:
        assert done.plan == "gradient_checkpointing:transformer,interval=2 + on_gpu:transformer"
        assert part.gradient_checkpointing
        assert expected(pipe, CALL).why_none == "the plan that is applied is for a training step, and this is a call"
    assert not part.gradient_checkpointing
    with pytest.raises(BadInput, match="is for training, and this is a call"):
        memplan.auto_optimize(pipe, "gradient_checkpointing:transformer", target=TARGET, device="cpu", **CALL)


def test_adapters_that_are_there_are_trained_as_they_are() -> None:
    pipe = build("flux")
    pipe.transformer.add_adapter(LoraConfig(r=3, target_modules=["to_q"]))
    answer = memplan.price(pipe, "", target=TARGET, train=Training("lora", rank=16, batch=1), **CALL).run.facts
    own = {name: tuple(w.shape) for name, w in pipe.transformer.named_parameters() if w.requires_grad}
    assert {weight.name: weight.shape for weight in answer.trace.trained} == own
    assert own
    assert any("the adapters that transformer has are trained" in text for text in answer.assumptions)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_code_trains(kind: str) -> None:
    train = Training(kind, batch=2, rank=4, accumulate=2, ema=True)
    plan = memplan.price(
        build("flux"), "gradient_checkpointing:transformer,interval=2", target=TARGET, train=train, **CALL
    )
    script = code.script(plan, "owner/name", {})
    compile(script, "script", "exec")
    lines = script.splitlines()
    assert "pipe(" not in script
    order = ["GradientCheckpointing(", "torch.nn.parallel.DistributedDataParallel(model)", "optimizer = "]
    found = [next(n for n, line in enumerate(lines) if word in line) for word in order]
    assert found == sorted(found)
    assert ("inject_adapter_in_model(LoraConfig(r=4" in script) == (kind == "lora")
    assert "    if number % 2 == 0:\n        optimizer.step()" in script
    assert "        averages.step(trained)" in script


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_code_casts(dtype: str) -> None:
    train = Training("lora", batch=1, rank=4, autocast=dtype)
    plan = memplan.price(build("flux"), "", target=TARGET, train=train, **CALL)
    assert {weight.dtype for weight in plan.run.facts.trace.trained} == {"float32"}
    assert any(f"is under autocast to {dtype}" in text for text in plan.run.facts.assumptions)
    script = code.script(plan, "owner/name", {})
    compile(script, "script", "exec")
    assert f'    with torch.autocast("cuda", torch.{dtype}):\n        result = model(' in script
    assert "cast_training_params(pipe.transformer, dtype=torch.float32)" in script
    assert ("scaler.step(optimizer)" in script) == (dtype == "float16")
