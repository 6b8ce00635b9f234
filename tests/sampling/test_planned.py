"""Plans for calls that keep gradients: their peaks are those of real calls, and what fits is picked."""

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest

import memplan
from memplan.__main__ import main
from memplan.errors import BadInput, Unsupported
from memplan.faces.report import code
from memplan.facts import DENOISING, GIB, Differentiable, Facts, Gpu, Host, Machine
from memplan.planner import Plan, recommend, seated
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace.differentiating import dry_run_with_gradients
from memplan.registry import strategies
from memplan.strategies import DifferentiableSampling, GradientCheckpointing, ModelOffload
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.sampling.solved import STEPS, call_of, denoiser, loss_of, only_the_denoiser, peak_of, without_random_states
from tests.simulator.test_differentiated import encoding_once

WITHIN = 0.03
MACHINE = Machine(Gpu("a GPU", total=24 * GIB, free=24 * GIB), Host(total=64 * GIB, available=64 * GIB))
CHECKPOINTS = (None, "step", "block")


@lru_cache(maxsize=4)
def facts(family: str, output_type: str = "latent") -> Facts:
    """Facts of the family's call with the kernels of this CPU."""
    twin = open_pipeline(build(family))
    switches, call = DifferentiableSampling.switches({}), call_of(family, output_type=output_type)
    trace = dry_run_with_gradients(twin, call, "cpu", switches=switches)
    return Facts(MACHINE, measure(twin.pipe), trace, None, Differentiable())


def long(known: Facts, times: int = 100) -> Facts:
    """The same call with so many times its steps."""
    trace = known.trace
    timeline = tuple(replace(s, repeat=s.repeat * times if trace.calls[s.call].phase == DENOISING else s.repeat)
                     for s in trace.timeline)  # fmt: skip
    return replace(known, trace=replace(trace, timeline=timeline, steps=trace.steps * times))


def plan(known: Facts, checkpoint: str | None) -> Plan:
    """The plan with that checkpoint."""
    components = DifferentiableSampling.takes(known)
    return seated(known, [DifferentiableSampling(components, checkpoint)] if checkpoint else [])


def predicted(known: Facts, checkpoint: str | None) -> int:
    """The most activations of the call and its backward."""
    return max(peak.activations for peak in plan(known, checkpoint).bill.peaks)


def measured(family: str, checkpoint: str | None, output_type: str = "latent", last: int | None = None) -> int:
    """The same of a real call, without the states of random numbers, which are in host memory beside any device."""
    pipe = encoding_once(only_the_denoiser(build(family)))

    def whole() -> None:
        with memplan.differentiable(pipe, checkpoint=checkpoint, last=last):
            loss_of(pipe(**call_of(family, output_type=output_type))).backward()

    with without_random_states():
        return peak_of(whole)[1]


# ---- against real calls ----------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_call_holds_what_is_predicted(checkpoint: str | None) -> None:
    assert measured("sd3", checkpoint) == pytest.approx(predicted(facts("sd3"), checkpoint), rel=WITHIN)


@pytest.mark.wide
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("family", ["flux", "wan", "sdxl"])
def test_so_do_those_of_other_families(family: str, checkpoint: str | None) -> None:
    assert measured(family, checkpoint) == pytest.approx(predicted(facts(family), checkpoint), rel=WITHIN)


@pytest.mark.wide
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_so_does_one_whose_last_steps_keep_gradients(checkpoint: str | None) -> None:
    known = replace(facts("sd3"), differentiable=Differentiable(last=2))
    assert measured("sd3", checkpoint, last=2) == pytest.approx(predicted(known, checkpoint), rel=WITHIN)


@pytest.mark.wide
@pytest.mark.parametrize("checkpoint", [None, "step"])
def test_so_does_one_that_decodes(checkpoint: str | None) -> None:
    known = facts("flux", "pt")
    assert [peak.component for peak in plan(known, checkpoint).bill.peaks if peak.phase == "backward"] == [
        "vae",
        "transformer",
    ]
    assert measured("flux", checkpoint, "pt") == pytest.approx(predicted(known, checkpoint), rel=WITHIN)


# ---- plans -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_fastest_that_fits_is_picked() -> None:
    known = long(facts("sd3"))
    plans = {checkpoint: plan(known, checkpoint) for checkpoint in CHECKPOINTS}
    needed = {checkpoint: int(one.bill.peak.memory.required * 1.03) for checkpoint, one in plans.items()}
    assert needed[None] > max(needed["step"], needed["block"])
    for room in needed.values():
        machine = replace(MACHINE, gpu=Gpu("a GPU", total=room, free=room))
        found = recommend(replace(known, machine=machine), strategies()).pick("speed")
        fitting = [one for checkpoint, one in plans.items() if needed[checkpoint] <= room]
        fastest = min(one.bill.seconds for one in fitting)
        assert found is not None
        assert found.fits
        assert found.bill.seconds == pytest.approx(fastest, rel=0.05)
        assert found.strategies in [one.strategies for one in fitting]


@pytest.mark.slow
def test_only_the_last_steps_are_kept() -> None:
    every = facts("sd3")
    saved = every.trace.graphs[0].tensors.saved
    kept = [predicted(replace(every, differentiable=Differentiable(last)), None) for last in (1, 2, STEPS, None)]
    assert [after - before for before, after in pairwise(kept)] == [saved, 2 * saved, 0]


@pytest.mark.slow
def test_the_code_is_the_context() -> None:
    known = replace(facts("sd3"), differentiable=Differentiable(last=2))
    script = code.script(plan(known, "block"), "owner/name", {})
    assert 'with memplan.differentiable(pipe, checkpoint="block", last=2):\n    result = pipe(\n' in script
    assert "pipe.text_encoder.requires_grad_(False)\n" in script
    assert "pipe.transformer.requires_grad_" not in script
    compile(script, "script", "exec")


# ---- refusals --------------------------------------------------------------------------------------------------------
def test_a_plan_for_gradients_names_the_context_where_none_are_kept() -> None:
    known = facts_of(build("sd3"))
    strategy = DifferentiableSampling(("transformer",))
    with pytest.raises(BadInput, match=r"and this is a call: .*with memplan.differentiable\(pipe, checkpoint=…\):"):
        seated(known, [strategy])
    with pytest.raises(Unsupported, match=r'with memplan.differentiable\(pipe, checkpoint="step"\)'):
        strategy.apply(build("sd3"), "cpu")
    keeping = replace(known, differentiable=Differentiable())
    for other in (ModelOffload(("transformer",)), GradientCheckpointing("transformer")):
        with pytest.raises(BadInput, match="and this is a call that keeps gradients"):
            seated(keeping, [other])
    with pytest.raises(BadInput, match='checkpoint is "step" or "block", not "all"'):
        seated(keeping, [replace(strategy, checkpoint="all")])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"differentiable": True}, r"write differentiable=memplan.Differentiable\(\)"),
        ({"differentiable": Differentiable(last=0)}, "last is the number of steps"),
        ({"differentiable": Differentiable(), "train": memplan.Training()}, "give one"),
    ],
)
def test_what_cannot_be_asked_for(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        memplan.recommend("sd1.5", target=memplan.Target(vram=1, ram=4), **asked)


def test_a_picture_that_is_no_tensor_is_refused_before_anything_is_followed() -> None:
    with pytest.raises(BadInput, match='give "pt" for pictures or "latent" for latents'):
        memplan.price(
            build("sd3"), "", target=memplan.Target(vram=1, ram=4), differentiable=Differentiable(), output_type="pil"
        )


def test_the_last_steps_of_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "sd1.5", "--last", "2"]) == 2
    assert "say --differentiable too" in capsys.readouterr().err


def test_blocks_of_a_denoiser_that_has_none() -> None:
    pipe = build("sd3")
    denoiser(pipe).enable_gradient_checkpointing()
    with pytest.raises(Unsupported, match='give checkpoint="step"'), memplan.differentiable(pipe, checkpoint="block"):
        pass
