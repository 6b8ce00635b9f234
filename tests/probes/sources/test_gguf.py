"""A transformer from a GGUF file: as many bytes as the file has, and a forward that holds what diffusers' layers do."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel

from memplan.errors import BadInput, Unsupported
from memplan.facts import Component
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.twin import Twin
from memplan.probes.pipeline import measure
from memplan.probes.sources import identity, open_pipeline
from memplan.probes.sources.gguf import library, quantize
from memplan.probes.sources.gguf_headers import TYPES
from memplan.probes.sources.skeleton import fake_module
from memplan.probes.trace import dry_run
from tests.accuracy.measured import peak_of
from tests.pipelines import build, inputs
from tests.probes.gguf_files import write

COMPUTE = torch.bfloat16
KINDS = ("BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS")


def flux_of(kind: str, model: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a transformer by diffusers' names: the wide linear layers in `kind`, all else in F32."""
    _, block, _ = TYPES[kind]
    linear = {f"{path}.weight" for path, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    return {
        name: (kind if name in linear and shape[-1] % block == 0 else "F32", shape) for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX pipeline, saved, and beside it a GGUF file of its transformer."""
    pipe = build("flux", dtype=COMPUTE)
    path = tmp_path_factory.mktemp("gguf") / "flux"
    pipe.save_pretrained(path)
    write(path.parent / "small.gguf", flux_of("Q4_0", pipe.transformer))
    return path


def opened(folder: Path, file: str = "small.gguf", dtype: str | None = None) -> Twin:
    return open_pipeline(f"{folder},transformer={folder.parent / file}", dtype)


def measured(twin: Twin) -> Component:
    return measure(twin.pipe, twin.name, twin.source, twin.files).component("transformer")


def test_bytes_of_each_weight(folder: Path) -> None:
    model = build("flux").transformer
    by_hand = {name: _bytes(kind, shape) for name, (kind, shape) in flux_of("Q4_0", model).items()}
    component = measured(opened(folder))
    assert {w.name: w.nbytes for w in component.weights} == by_hand
    assert {w.dtype for w in component.weights} == {"uint8", "bfloat16"}
    assert component.dtype == "bfloat16"
    assert component.file == str(folder.parent / "small.gguf")
    assert opened(folder).cast == {"transformer"}  # it is copied, not mapped


def _bytes(kind: str, shape: tuple[int, ...]) -> int:
    """18 bytes for 32 elements of Q4_0; what is not quantized is loaded in the compute dtype."""
    return torch.Size(shape).numel() // 32 * 18 if kind == "Q4_0" else torch.Size(shape).numel() * COMPUTE.itemsize


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_holds_what_the_real_layer_does(kind: str, tmp_path: Path) -> None:
    """diffusers' own layer with real bytes, run on this CPU."""
    _, block, item = TYPES[kind]
    rows, columns = 256, 512
    real = library().GGUFLinear(columns, rows, True, compute_dtype=torch.float32)
    data = torch.zeros(rows, columns // block * item, dtype=torch.uint8)
    real.weight = library().GGUFParameter(data, quant_type=library().gguf.GGMLQuantizationType[kind])
    given = torch.zeros(8, columns)
    with torch.no_grad():
        _, peak = peak_of(lambda: real(given))
    twin = open_pipeline({"part": Holder(torch.nn.Linear(columns, rows))})
    path = write(tmp_path / "x.gguf", {"layer.weight": (kind, (rows, columns)), "layer.bias": ("F32", (rows,))})
    quantize(twin.pipe.part, path, twin.mode)
    trace = dry_run(twin, {"part": {"given": given}}, "cpu")
    call = next(call for call in trace.calls if call.component)
    excess = peak - call.peak_segment.peak
    assert peak > columns * rows * 4
    assert 0 <= excess < peak // 1000


class Holder(torch.nn.Module):
    """A model of one layer, with what diffusers' models say of themselves."""

    _keep_in_fp32_modules = None
    dtype = torch.float32

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, given: torch.Tensor) -> Any:
        return self.layer(given)


@pytest.mark.slow
def test_a_call_of_the_pipeline(folder: Path) -> None:
    twin, plain = opened(folder), open_pipeline(folder)
    traffic = []
    for each in (twin, plain):
        trace = dry_run(each, inputs("flux"))
        called = {call.component: call for call in trace.calls}
        assert set(called) >= {"text_encoder", "text_encoder_2", "transformer", "vae"}
        traffic.append(sum(segment.traffic for segment in called["transformer"].segments))
    assert traffic[0] > 1.2 * traffic[1]  # in a model this small few layers have rows of whole blocks


def test_what_the_libraries_refuse(folder: Path) -> None:
    component = measured(opened(folder))
    assert (
        component.lack("sequential") == "FluxTransformer2DModel: accelerate makes GGUF weights anew without their type"
    )
    assert component.lack("layerwise_casting") == "FluxTransformer2DModel is stored quantized already"
    assert component.lack("group_offload") is None
    assert component.cast == ()
    assert sum(component.weights[i].nbytes for g in component.groupings[0].groups for i in g.weights) == component.size


def test_accelerate_does_lose_their_type() -> None:
    from accelerate import cpu_offload

    layer = library().GGUFLinear(32, 4, True, compute_dtype=torch.float32)
    kind = library().gguf.GGMLQuantizationType.Q4_0
    layer.weight = library().GGUFParameter(torch.zeros(4, 18, dtype=torch.uint8), quant_type=kind)
    with pytest.raises(KeyError):
        cpu_offload(torch.nn.Sequential(layer), torch.device("cpu"))


def test_the_compute_dtype_is_the_one_asked_for(folder: Path) -> None:
    twin = opened(folder, dtype="float32")
    layers = [m for m in twin.pipe.transformer.modules() if type(m).__name__ == "GGUFLinear"]
    assert layers
    assert {layer.compute_dtype for layer in layers} == {torch.float32}


def test_original_names_are_split_as_diffusers_does(tmp_path: Path) -> None:
    """Of one tensor with three projections in the file, each weight of the model has its rows."""
    mode = fresh_mode()
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": False}
    model = fake_module(FluxTransformer2DModel, config, COMPUTE, mode)
    quantize(model, write(tmp_path / "x.gguf", published()), mode)
    sizes = {name: weight.nbytes for name, weight in model.named_parameters()}
    square = WIDE * WIDE // 256 * 144
    assert {sizes[f"transformer_blocks.0.attn.to_{x}.weight"] for x in "qkv"} == {square}
    assert {sizes[f"single_transformer_blocks.0.attn.to_{x}.weight"] for x in "qkv"} == {square}
    assert sizes["single_transformer_blocks.0.proj_mlp.weight"] == 4 * square
    assert sizes["norm_out.linear.weight"] == 2 * square
    assert sizes["x_embedder.weight"] == WIDE * 64 * COMPUTE.itemsize
    assert sizes["transformer_blocks.0.attn.to_q.bias"] == WIDE * COMPUTE.itemsize


WIDE = 3072
"""Width of FLUX.1, by which diffusers splits its tensors."""


def published() -> dict[str, tuple[str, tuple[int, ...]]]:
    """A FLUX.1 of one block of each kind, named and joined as its publisher does, in Q4_K."""
    square = {
        "time_in.in_layer": (1, 256), "time_in.out_layer": (1, WIDE), "vector_in.in_layer": (1, 768),
        "vector_in.out_layer": (1, WIDE), "txt_in": (1, 4096), "final_layer.adaLN_modulation.1": (2, WIDE),
        "single_blocks.0.modulation.lin": (3, WIDE), "single_blocks.0.linear1": (7, WIDE),
        "single_blocks.0.linear2": (1, 5 * WIDE),
    }  # fmt: skip
    for stream in ("img", "txt"):
        block = f"double_blocks.0.{stream}"
        square |= {f"{block}_mod.lin": (6, WIDE), f"{block}_attn.qkv": (3, WIDE), f"{block}_attn.proj": (1, WIDE)}
        square |= {f"{block}_mlp.0": (4, WIDE), f"{block}_mlp.2": (1, 4 * WIDE)}
    found: dict[str, tuple[str, tuple[int, ...]]]
    found = {f"{name}.weight": ("Q4_K", (rows * WIDE, columns)) for name, (rows, columns) in square.items()}
    found |= {f"{name}.bias": ("F32", (rows * WIDE,)) for name, (rows, _) in square.items()}
    found |= {"img_in.weight": ("F16", (WIDE, 64)), "img_in.bias": ("F32", (WIDE,))}
    found |= {"final_layer.linear.weight": ("F16", (64, WIDE)), "final_layer.linear.bias": ("F32", (64,))}
    norms = ("double_blocks.0.img_attn", "double_blocks.0.txt_attn", "single_blocks.0")
    return found | {f"{b}.norm.{x}_norm.scale": ("F32", (128,)) for b in norms for x in ("query", "key")}


def test_diffusers_is_left_without_the_tables(folder: Path) -> None:
    assert library().GGUFLinear is library().GGUFLinear
    assert ("gguf" in sys.modules) == (find_spec("gguf") is not None)


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_another_model(folder: Path) -> None:
    write(folder.parent / "other.gguf", {"a.weight": ("F32", (4, 4))})
    with pytest.raises(BadInput, match=r"diffusers makes no FluxTransformer2DModel of the tensors in .*other\.gguf"):
        opened(folder, "other.gguf")


def test_a_tensor_of_another_shape(folder: Path) -> None:
    tensors = flux_of("Q4_0", build("flux").transformer)
    write(folder.parent / "wide.gguf", {**tensors, "x_embedder.weight": ("F32", (3, 32))})
    with pytest.raises(BadInput, match=r"wide\.gguf has x_embedder\.weight of shape \(3, 32\), and this Flux"):
        opened(folder, "wide.gguf")


def test_a_type_that_diffusers_does_not_dequantize(folder: Path) -> None:
    tensors = flux_of("IQ2_S", build("flux", "medium").transformer)
    write(folder.parent / "iq2.gguf", tensors)
    with pytest.raises(Unsupported, match=r"as IQ2_S, which diffusers does not dequantize\. It does: BF16, IQ4_NL"):
        opened(folder, "iq2.gguf")


def test_quantized_where_no_layer_dequantizes(folder: Path) -> None:
    tensors = flux_of("Q4_0", build("flux").transformer)
    name = next(name for name in tensors if name.endswith("norm_q.weight"))
    write(folder.parent / "norm.gguf", {**tensors, name: ("BF16", tensors[name][1])})
    with pytest.raises(Unsupported, match=f"norm.gguf stores {name} as BF16, and diffusers dequantizes the weights"):
        opened(folder, "norm.gguf")


def test_a_component_that_is_not_there(folder: Path) -> None:
    with pytest.raises(BadInput, match="has no component unet; it has"):
        open_pipeline(f"{folder},unet={folder.parent / 'small.gguf'}")


def test_two_states_of_the_file(folder: Path) -> None:
    source = f"{folder},transformer={folder.parent / 'small.gguf'}"
    before = identity(source)
    (folder.parent / "small.gguf").touch()
    assert identity(source) != before
