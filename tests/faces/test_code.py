"""A plan as a script."""

import ast
from dataclasses import replace

from memplan.faces.report.code import script
from memplan.facts import Facts
from memplan.planner import draw
from memplan.strategies import GroupOffload, LayerwiseCasting, OnGpu
from tests.faces import small

PLAN = (
    LayerwiseCasting("text_encoder", skip=("norm",)),
    GroupOffload("transformer", stream=True),
    GroupOffload("vae"),
    OnGpu("text_encoder"),
)


def written(facts: Facts | None = None) -> str:
    return script(draw(facts or small.facts(), PLAN), "/models/small", {"prompt": 'a "red" cat'})


def test_imports_come_first_and_once() -> None:
    lines = written().splitlines()
    assert lines[:4] == [
        "import torch",
        "from diffusers import SmallPipeline",
        "from diffusers.hooks import apply_group_offloading, apply_layerwise_casting",
        "",
    ]
    assert not any(line.startswith(("import", "from")) for line in lines[4:])


def test_it_loads_applies_and_calls_in_this_order() -> None:
    text = written()
    steps = ['from_pretrained("/models/small", torch_dtype=torch.bfloat16)', "pipe.transformer,", "pipe.vae,"]
    steps += ['pipe.text_encoder.to("cuda")', "result = pipe("]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    ast.parse(text)


def test_arguments_are_written_out() -> None:
    assert '    prompt="a \\"red\\" cat",' in written()
    assert "    height=1024," in written()


def test_components_of_another_dtype_are_loaded_in_it() -> None:
    facts = small.facts()
    parts = tuple(replace(c, dtype="float32") if c.name == "vae" else c for c in facts.model.components)
    text = written(replace(facts, model=replace(facts.model, components=parts)))
    assert 'torch_dtype={"vae": torch.float32, "default": torch.bfloat16}' in text
    ast.parse(text)


def test_the_device_is_that_of_the_machine() -> None:
    facts = small.facts()
    assert facts.machine.gpu is not None
    machine = replace(facts.machine, gpu=replace(facts.machine.gpu, kind="xpu"))
    assert 'pipe.text_encoder.to("xpu")' in written(replace(facts, machine=machine))
