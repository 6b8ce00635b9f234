"""Memory runs out in every phase of real pipelines: the answer names the phase, the step, the module and the bytes."""

from typing import Any

import pytest
import torch

from memplan.faces.oom.answer import Answer, diagnosis
from memplan.faces.oom.cause import out_of_memory
from memplan.facts import MIB
from memplan.oom import POSSIBLY, Allocation
from memplan.probes.fakes.twin import modules_of
from tests.oom import limit
from tests.pipelines import build, inputs

PHASES = (("text encoding", 1), ("denoising", 1), ("denoising", 2), ("decoding", 0), ("post-processing", 0))
EVERY = (
    "flux",
    "sd15",
    "wan",
    "sdxl",
    "sd3",
    "cogvideox",
    "ltx",
    "auraflow",
    "lumina2",
    "chroma",
    "pixart_sigma",
    "qwenimage",
)


def answered(pipe: Any, call: dict[str, Any], phase: str, step: int, op: int) -> tuple[Answer, limit.Raised]:
    error, raised = limit.run_out(pipe, call, phase, step, op)
    found = out_of_memory(error)
    assert found is not None
    answer, scene = diagnosis(*found)
    assert scene.pipe is pipe
    return answer, raised


def paths(pipe: Any) -> dict[int, str]:
    """Every module by its path from the pipeline."""
    parts = [(name, part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)]
    return {id(m): f"{n}.{p}".removesuffix(".") for n, part in reversed(parts) for p, m in part.named_modules()}


def check(pipe: Any, name: str, phase: str, step: int, op: int) -> None:
    answer, raised = answered(pipe, inputs(name), phase, step, op)
    assert answer.place.phase == phase
    if phase == "denoising":
        assert (answer.place.step, answer.place.steps) == (step, inputs(name)["num_inference_steps"])
    expected = paths(pipe)[id(raised.module)] if raised.module is not None else answer.place.path
    assert answer.place.path == expected
    assert answer.failed.asked == pytest.approx(raised.asked, rel=0.01)
    assert answer.failed.missing == pytest.approx(raised.asked - raised.free, rel=0.02)
    assert dict(answer.call).keys() >= {"prompt", "height", "width", "num_inference_steps"}
    assert "generator" not in dict(answer.call)


def spots(pipe: Any, name: str) -> list[tuple[str, int, int]]:
    """The first, the middle and the last op of every phase."""
    ops = limit.counted(pipe, inputs(name))
    return [(*at, op) for at in PHASES for op in sorted({0, ops[at] // 2, ops[at] - 1}) if ops[at]]


@pytest.mark.parametrize(("phase", "step"), PHASES)
def test_it_names_the_place(phase: str, step: int) -> None:
    check(build("flux"), "flux", phase, step, 0)


def test_memory_that_a_pipeline_keeps_quiet_about() -> None:
    """Sana's decode turns the error into a warning, and then a picture is missing."""
    pipe = build("sana")
    with limit.watched(pipe) as where, limit.Limit(where, "decoding", 0, 3), pytest.raises(UnboundLocalError) as caught:
        pipe(**inputs("sana"))
    found = out_of_memory(caught.value)
    assert found is not None
    answer, scene = diagnosis(*found)
    assert answer.failed == Allocation(certainty=POSSIBLY)
    assert answer.place.phase == "decoding"
    assert scene.pipe is pipe
    assert out_of_memory(UnboundLocalError("image")) is None


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize("name", EVERY)
def test_it_names_the_place_in_more_pipelines(name: str) -> None:
    pipe = build(name)
    every = spots(pipe, name)
    assert len(every) >= 10
    for phase, step, op in every:
        check(pipe, name, phase, step, op)


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize("name", EVERY)
def test_it_names_loading_and_the_component_in_more_pipelines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each component is the one that does not fit the device any more."""
    pipe = build(name)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(limit.text(6 * MIB, 8 * MIB, 2 * MIB))

    for component, part in modules_of(pipe).items():
        *_, (path, module) = part.named_modules()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_apply", full)
            with pytest.raises(torch.OutOfMemoryError) as caught:
                pipe.to("cpu")
        found = out_of_memory(caught.value)
        assert found is not None
        told, scene = diagnosis(*found)
        assert (told.place.phase, told.place.component) == ("loading", component)
        assert path.startswith(told.place.module)
        assert told.failed.missing == 4 * MIB
        assert scene.pipe is pipe
