"""A plan as a script."""

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, TorchAoConfig
from safetensors.torch import save_file
from torchao.quantization import Int8WeightOnlyConfig

from memplan.faces.report.code import script
from memplan.faces.report.loading import loading
from memplan.facts import Facts
from memplan.planner import draw
from memplan.probes.fakes.twin import modules_of
from memplan.probes.pipeline import measure
from memplan.registry import parse
from memplan.strategies import GroupOffload, LayerwiseCasting, OnGpu
from tests.faces import small
from tests.pipelines import build

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
    steps = ['from_pretrained("/models/small", dtype=torch.bfloat16)', "pipe.transformer,", "pipe.vae,"]
    steps += ['pipe.text_encoder.to("cuda")', "result = pipe("]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    ast.parse(text)


def test_what_stays_on_the_device_whole_is_moved_at_once() -> None:
    parts = [part.name for part in small.facts().model.components]
    whole = (LayerwiseCasting("text_encoder", skip=("norm",)), *map(OnGpu, parts))
    text = script(draw(small.facts(), whole), "/models/small", {})
    assert re.findall(r"pipe\S*\.to\(.*\)", text) == ['pipe.to("cuda")']
    assert text.index("apply_layerwise_casting(\n") < text.index("pipe.to(") < text.index("result")
    assert 'pipe.to("cuda")' not in script(draw(small.facts(), whole[:-1]), "/models/small", {})


def test_arguments_are_written_out() -> None:
    assert '    prompt="a \\"red\\" cat",' in written()
    assert "    height=1024," in written()


def test_components_of_another_dtype_are_loaded_in_it() -> None:
    facts = small.facts()
    parts = tuple(replace(c, dtype="float32") if c.name == "vae" else c for c in facts.model.components)
    text = written(replace(facts, model=replace(facts.model, components=parts)))
    assert 'dtype={"vae": torch.float32, "default": torch.bfloat16}' in text
    ast.parse(text)


def test_the_device_is_that_of_the_machine() -> None:
    facts = small.facts()
    assert facts.machine.gpu is not None
    machine = replace(facts.machine, gpu=replace(facts.machine.gpu, kind="xpu"))
    assert 'pipe.text_encoder.to("xpu")' in written(replace(facts, machine=machine))


# ---- pictures and what else has no literal ---------------------------------------------------------------------------
PHOTO = str(Path("~/a photo.png"))
ARGUMENTS: dict[str, tuple[str, dict[str, str], str, str]] = {
    "made up": ("a made-up 32 x 24 picture", {}, "Image.new('RGB', (32, 24), 'white')", "PIL"),
    "a size": ("a 32 x 24 picture", {"image": "32x24"}, "Image.new('RGB', (32, 24), 'white')", "PIL"),
    "a path": ("a 32 x 24 picture", {"image": PHOTO}, f"load_image({str(Path(PHOTO).expanduser())!r})", "diffusers"),
    "a made-up video": (
        "16 made-up pictures of 32 x 24", {}, "[Image.new('RGB', (32, 24), 'white')] * 16", "PIL",
    ),
    "a video of a size": (
        "5 pictures of 32 x 24", {"image": "32x24x5"}, "[Image.new('RGB', (32, 24), 'white')] * 5", "PIL",
    ),
    "a tensor": ("tensor(1, 2)", {}, "...", ""),
    "a text cut short": ("'much longer…'", {}, "...", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_every_argument_makes_a_script_that_compiles(case: str) -> None:
    shown, call, value, module = ARGUMENTS[case]
    facts = small.facts()
    trace = replace(facts.trace, arguments=(("image", shown), *facts.trace.arguments))
    text = script(draw(replace(facts, trace=trace), PLAN), "/models/small", {"prompt": "a cat", **call})
    tree = ast.parse(text)
    call_of_pipe = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == "pipe")
    values = {argument.arg: ast.unparse(argument.value) for argument in call_of_pipe.keywords}
    assert values == {"image": value, "prompt": "'a cat'", "height": "1024"}
    assert any(line.startswith(f"from {module}") for line in text.splitlines())
    assert ("to be filled in: " + shown in text) == (value == "...")


def test_a_made_up_mask_has_one_channel() -> None:
    facts = small.facts()
    trace = replace(facts.trace, arguments=(("mask_image", "a made-up 32 x 24 picture"),))
    text = script(draw(replace(facts, trace=trace), PLAN), "/models/small", {})
    assert '    mask_image=Image.new("L", (32, 24), "white"),' in text


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


# ---- checkpoints of one file -----------------------------------------------------------------------------------------
def loaded(
    files: Mapping[Any, str], dtypes: Mapping[str, str], source: str = "owner/name", kind: str = "bundled"
) -> list[str]:
    """The lines between the imports and the strategies, for components from those files in those dtypes."""
    facts = small.facts()
    parts = tuple(
        replace(
            c, file=files.get(c.name, ""), dtype=dtypes.get(c.name, c.dtype),
            library="transformers" if c.name == "text_encoder" else "diffusers",
        )
        for c in facts.model.components
    )  # fmt: skip
    model = replace(facts.model, components=parts, source=f"{kind} {source}")
    text = script(draw(replace(facts, model=model), ()), source, {"prompt": "a cat"})
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    for part in parts:
        assert (f"import {part.class_name}" in text or f", {part.class_name}" in text) == (part.class_name in names)
    body = text.partition("\n\n")[2].partition("\n\n")[0]
    return ast.unparse(ast.parse(body)).splitlines()


def class_of(name: str) -> str:
    return small.facts().model.component(name).class_name


def test_a_denoiser_alone_is_loaded_by_itself() -> None:
    """FluxPipeline.from_single_file() refuses a file without text encoders."""
    assert loaded({"transformer": "x.safetensors"}, {"transformer": "float16"}) == [
        f"transformer = {class_of('transformer')}.from_single_file('x.safetensors', config='owner/name', "
        "subfolder='transformer', dtype=torch.float16)",
        "pipe = SmallPipeline.from_pretrained('owner/name', transformer=transformer, dtype=torch.bfloat16)",
    ]


def test_a_gguf_file_is_loaded_with_its_quantization() -> None:
    first, second = loaded({"transformer": "x.gguf"}, {"vae": "float32"}, "owner/name@dev", "hub")
    assert "quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16)" in first
    assert "config='owner/name', subfolder='transformer', config_revision='dev'" in first
    assert second == (
        "pipe = SmallPipeline.from_pretrained('owner/name', revision='dev', transformer=transformer, "
        "dtype={'vae': torch.float32, 'default': torch.bfloat16})"
    )


def test_a_whole_file_of_one_dtype() -> None:
    files = dict.fromkeys(("transformer", "text_encoder", "vae"), "x.safetensors")
    assert loaded(files, {}) == ["pipe = SmallPipeline.from_single_file('x.safetensors', dtype=torch.bfloat16)"]


def test_a_whole_file_of_several() -> None:
    """A pipeline's from_single_file() takes a table of dtypes for float32; components are loaded before it."""
    files = dict.fromkeys(("transformer", "text_encoder"), "x.safetensors")
    assert loaded(files, {"text_encoder": "float16", "vae": "float32"}) == [
        f"transformer = {class_of('transformer')}.from_single_file('x.safetensors', config='owner/name', "
        "subfolder='transformer', dtype=torch.bfloat16)",
        f"vae = {class_of('vae')}.from_pretrained('owner/name', subfolder='vae', dtype=torch.float32)",
        "pipe = SmallPipeline.from_single_file('x.safetensors', transformer=transformer, vae=vae, dtype=torch.float16)",
    ]


def test_diffusers_takes_these_lines(tmp_path: Path) -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    pipe.save_pretrained(tmp_path / "flux")
    file = str(tmp_path / "x.safetensors")
    save_file(pipe.transformer.half().state_dict(), file)
    model = measure(pipe, "flux", f"folder {tmp_path / 'flux'}", {"transformer": file})
    load = loading(model, str(tmp_path / "flux"))
    found: dict[str, Any] = {}
    exec("\n".join(("import torch", "from diffusers import FluxPipeline", *load.imports, *load.lines)), found)
    dtypes = {name: part.dtype for name, part in modules_of(found["pipe"]).items()}
    assert dtypes.pop("transformer") == torch.float16
    assert set(dtypes.values()) == {torch.bfloat16}


# ---- quantized at loading --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FLUX with a checkpoint of its transformer beside it."""
    place = tmp_path_factory.mktemp("flux")
    pipe = build("flux", dtype=torch.bfloat16)
    pipe.save_pretrained(place)
    save_file(pipe.transformer.state_dict(), place / "x.safetensors")
    return place


QUANTIZED = ("int8_weight_only:transformer", "bnb_4bit:text_encoder_2", "on_gpu:transformer")


def script_of(folder: Path, files: Mapping[str, str] | None = None, plan: tuple[str, ...] = QUANTIZED) -> str:
    """The script for a plan that quantizes."""
    model = measure(build("flux", dtype=torch.bfloat16), "flux", f"folder {folder}", files or {})
    facts = replace(small.facts(), model=model)
    return script(draw(facts, [parse(text, facts) for text in plan]), str(folder), {"prompt": "a cat"})


def executed(text: str) -> Any:
    """The pipeline of a script on the CPU, before it is called."""
    found: dict[str, Any] = {}
    exec(text.partition("result = ")[0].replace('"cuda"', '"cpu"'), found)
    return found["pipe"]


@pytest.mark.slow
def test_components_are_quantized_as_they_are_loaded(folder: Path) -> None:
    text = script_of(folder)
    assert "quantize_" not in text
    assert "Params4bit" not in text
    pipe = executed(text)
    assert type(pipe.transformer.proj_out.weight).__name__ == "Int8Tensor"
    attention = pipe.text_encoder_2.encoder.block[0].layer[0].SelfAttention
    assert type(attention.q.weight).__name__ == "Params4bit"
    assert attention.q.compute_dtype == torch.bfloat16
    assert pipe.vae.dtype == torch.bfloat16


@pytest.mark.slow
def test_diffusers_does_not_quantize_what_it_loads_from_one_file(folder: Path) -> None:
    """It says nothing. Where it learns to, these scripts may name the config."""
    config = TorchAoConfig(Int8WeightOnlyConfig())
    place = {"config": str(folder), "subfolder": "transformer"}
    part = FluxTransformer2DModel.from_single_file(str(folder / "x.safetensors"), quantization_config=config, **place)
    assert type(part.proj_out.weight) is torch.nn.Parameter


@pytest.mark.slow
def test_what_no_loader_quantizes_is_converted_afterwards(folder: Path) -> None:
    text = script_of(folder, {"transformer": str(folder / "x.safetensors")})
    assert "TorchAoConfig" not in text
    pipe = executed(text)
    assert type(pipe.transformer.proj_out.weight).__name__ == "Int8Tensor"
    assert type(pipe.text_encoder_2.shared.weight) is torch.nn.Parameter
    assert type(pipe.text_encoder_2.encoder.block[0].layer[0].SelfAttention.q.weight).__name__ == "Params4bit"


def test_neither_are_the_text_encoders_of_one_file(folder: Path) -> None:
    """They come with the pipeline, whose from_single_file() takes no config; what is beside it is quantized."""
    text = script_of(folder, {"text_encoder_2": str(folder / "x.safetensors")})
    assert "Params4bit(" in text
    assert "quantization_config=diffusers.TorchAoConfig(Int8WeightOnlyConfig())" in text
    assert "PipelineQuantizationConfig" not in text
    ast.parse(text)


def test_what_the_loader_would_leave_on_the_device_is_converted_where_the_plan_has_it_elsewhere(folder: Path) -> None:
    """bitsandbytes' quantizer loads both onto the device, which may have room for one at a time."""
    both = ("bnb_4bit:text_encoder_2", "bnb_4bit:transformer")
    assert "quantization_config" in script_of(folder, plan=both)
    text = script_of(folder, plan=(*both, "model_offload"))
    assert "quantization_config" not in text
    assert text.count("Params4bit(") == 2
    assert text.index("Params4bit(") < text.index("enable_model_cpu_offload")
    ast.parse(text)
