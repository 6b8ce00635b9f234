"""The models of the package f5-tts, small and with random weights.

Its `f5_tts.model` imports its trainer, and with that much that the models themselves need nothing of: only the modules
that define them are imported. Those import torchaudio and librosa for spectrograms of sound, which the tests give as
they are; where one is not there, or made for another torch, it stays out.
"""

import importlib
import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

BACKBONES = {"DiT": "dit", "MMDiT": "mmdit", "UNetT": "unett"}
NEEDED = ("f5_tts", "x_transformers", "torchdiffeq", "rjieba", "pypinyin")
MEL, DIM, FRAMES, STEPS = 20, 32, 24, 4
INSTALL = "pip install x-transformers torchdiffeq rjieba pypinyin && pip install --no-deps f5-tts"


def missing() -> str:
    """Why the models cannot be had; "" where they can."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed: {INSTALL}" if absent else ""


def module(name: str) -> Any:
    """A module of `f5_tts.model`."""
    if "f5_tts.model" not in sys.modules:
        package: Any = ModuleType("f5_tts.model")
        spec = importlib.util.find_spec("f5_tts")
        assert spec is not None
        package.__path__ = [str(Path(folder) / "model") for folder in spec.submodule_search_locations or ()]
        sys.modules["f5_tts.model"] = package
    with _left_out("torchaudio"), _left_out("librosa", "filters", "mel"):
        return importlib.import_module(f"f5_tts.model.{name}")


@contextmanager
def _left_out(name: str, part: str = "", attribute: str = "") -> Generator[None]:
    """`name`, and `attribute` of a part of it, are found without being there, if it cannot be imported."""
    absent: dict[str, ModuleType] = {}
    try:
        importlib.import_module(name)
    except (ImportError, OSError):
        absent = {name: ModuleType(name)} | ({f"{name}.{part}": ModuleType(part)} if part else {})
        setattr([*absent.values()][-1], attribute or "absent", None)
    sys.modules.update(absent)
    try:
        yield
    finally:
        for key in absent:
            del sys.modules[key]


def backbone(kind: str) -> Any:
    """One of the backbones; its own first weights are zeros in places, through which no gradient would flow."""
    own = {} if kind == "MMDiT" else {"text_dim": 16, "conv_layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = getattr(module(f"backbones.{BACKBONES[kind]}"), kind)(
            dim=DIM, depth=4, heads=2, dim_head=16, ff_mult=2, mel_dim=MEL, text_num_embeds=30, **own
        )
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    return net.eval()


def cfm(kind: str) -> Any:
    """F5-TTS as it samples, on that backbone."""
    return module("cfm").CFM(backbone(kind), mel_spec_kwargs={"n_mel_channels": MEL}).eval()


def sampled() -> dict[str, Any]:
    """The arguments of `sample()`."""
    noise = torch.Generator().manual_seed(1)
    return {
        "cond": torch.randn(1, FRAMES // 2, MEL, generator=noise), "text": torch.arange(6)[None], "duration": FRAMES,
        "steps": STEPS, "cfg_strength": 2.0, "seed": 0, "use_epss": False,
    }  # fmt: skip


def forward() -> dict[str, Any]:
    """The arguments of a backbone's forward."""
    noise = torch.Generator().manual_seed(1)
    x, cond = (torch.randn(2, FRAMES, MEL, generator=noise) for _ in range(2))
    return {"x": x, "cond": cond, "text": torch.arange(12).view(2, 6), "time": torch.rand(2, generator=noise)}
