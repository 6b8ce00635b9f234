"""GGUF files as the package gguf writes them, planned from their headers and loaded by diffusers: the same bytes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, GGUFQuantizationConfig

from memplan.errors import BadInput, Unsupported
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.gguf import quantize
from memplan.probes.sources.skeleton import fake_module
from memplan.probes.trace import dry_run
from tests.accuracy.cpu import SMALL, WITHOUT_A_DECODE
from tests.accuracy.measured import component_peaks
from tests.pipelines import build, inputs
from tests.probes.gguf_files import quantized, write
from tests.probes.sources.test_gguf import COMPUTE, published

pytest.importorskip("gguf", reason="diffusers loads GGUF files through that package")
BLOCKS_OF_32 = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16")
"""The kinds that gguf quantizes to, and those that are not quantized."""
BLOCKS_OF_256 = ("Q4_K", "Q6_K", "IQ4_XS")
"""Kinds that the layers of the tiny pipeline are too narrow for."""
ALWAYS = ("Q4_0", torch.bfloat16)
CASES = [
    *(("tiny", kind, dtype) for kind in BLOCKS_OF_32 for dtype in (torch.bfloat16, torch.float32)),
    *(("medium", kind, torch.bfloat16) for kind in BLOCKS_OF_256),
]


def saved(folder: Path, size: str, kind: str) -> tuple[Path, Path]:
    """A FLUX pipeline as a folder, and its transformer as a file."""
    pipe = build("flux", size, COMPUTE)
    pipe.save_pretrained(folder / "flux")
    return folder / "flux", quantized(folder / "x.gguf", pipe.transformer, kind)


def loaded(file: Path, config: Path, dtype: torch.dtype) -> Any:
    """The transformer, as users load it."""
    return FluxTransformer2DModel.from_single_file(
        str(file), config=str(config), subfolder="transformer", torch_dtype=dtype,
        quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
    )  # fmt: skip


def bytes_of(source: Any, dtype: torch.dtype) -> dict[str, tuple[int, str]]:
    """Bytes and dtype of each weight of the transformer, as planned."""
    twin = open_pipeline(source, str(dtype).removeprefix("torch."))
    component = measure(twin.pipe, twin.name, twin.source, twin.files).component("transformer")
    return {weight.name: (weight.nbytes, weight.dtype) for weight in component.weights}


def really(model: torch.nn.Module) -> dict[str, tuple[int, str]]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: (tensor.nbytes, str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors}


def peak_of(source: Any, call: dict[str, Any], dtype: torch.dtype | None = None) -> int:
    """What a call of the transformer holds by the dry run."""
    twin = open_pipeline(source, str(dtype).removeprefix("torch.") if dtype else None)
    return next(c.peak_segment.peak for c in dry_run(twin, call, device="cpu").calls if c.component == "transformer")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "kind", "dtype"),
    [pytest.param(*case, marks=() if case[1:] == ALWAYS else pytest.mark.wide) for case in CASES],
)
def test_bytes_and_peak(size: str, kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder, file = saved(tmp_path, size, kind)
    source = f"{folder},transformer={file}"
    model = loaded(file, folder, dtype)
    real = really(model)
    assert bytes_of(source, dtype) == real
    assert ("uint8" in {dtype for _, dtype in real.values()}) == (kind != "F16")
    pipe = build("flux", size, dtype)
    pipe.register_modules(transformer=model)
    call = inputs("flux", size) | WITHOUT_A_DECODE
    planned, live = peak_of(source, call, dtype), peak_of(pipe, call)
    measured = component_peaks(pipe, call)["transformer", "forward"]
    assert planned == live
    assert abs(measured - planned) <= 2 * SMALL  # a table of values comes beside the scalars, of IQ4_XS


@pytest.mark.wide
def test_original_names(tmp_path: Path) -> None:
    """Tensors that diffusers renames, splits and turns round; the file takes no room on the disk."""
    mode, kind = fresh_mode(), FluxTransformer2DModel
    planned = fake_module(kind, {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": False}, COMPUTE, mode)
    planned.save_config(tmp_path / "transformer")
    file = write(tmp_path / "x.gguf", published())
    quantize(planned, file, mode)
    assert really(planned) == really(loaded(file, tmp_path, COMPUTE))


def test_a_big_endian_file(tmp_path: Path) -> None:
    pipe = build("flux", dtype=COMPUTE)
    pipe.save_pretrained(tmp_path / "flux")
    file = quantized(tmp_path / "x.gguf", pipe.transformer, "Q8_0", big_endian=True)
    with pytest.raises(OSError, match="Unable to load weights"):
        loaded(file, tmp_path / "flux", COMPUTE)
    with pytest.raises(Unsupported, match=r"x\.gguf is a big-endian GGUF file"):
        bytes_of(f"{tmp_path / 'flux'},transformer={file}", COMPUTE)


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    folder, file = saved(tmp_path, "tiny", "Q8_0")
    whole = file.read_bytes()
    for kept in (20, 5000, len(whole) - 5000):
        file.write_bytes(whole[:kept])
        with pytest.raises(BadInput, match=r"x\.gguf is not a whole GGUF file: .* the file is cut short\. Download"):
            bytes_of(f"{folder},transformer={file}", COMPUTE)
