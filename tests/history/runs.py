"""Made-up runs with round figures, and no torch."""

from dataclasses import replace
from importlib.metadata import version
from typing import Any

from memplan.faces.history.record import Figures, Phase, Place, Record
from memplan.facts import MIB

HERE = Place("a card", "580.1", *map(version, ("torch", "diffusers", "memplan")))


def run(number: int = 0, more: int = 0, **changes: Any) -> Record:
    """A run on a GPU that took `more` MiB than predicted while decoding."""
    phases = (
        Phase("preparing", "", Figures(ram=5), Figures(MIB, 2 * MIB, 0.01, 5)),
        Phase("denoising", "transformer", figures(300), figures(290)),
        Phase("decoding", "vae", figures(500), figures(500 + more)),
        Phase("text encoding", "text_encoder", figures(100)),
    )
    call = (("prompt", "'a small dog'"), ("height", "64"))
    words = ("small", "SmallPipeline", "c0", f"{number:032}", call, "model_offload")
    made = Record("2026-01-31T12:00:00", HERE, *words, "cuda", 0, True, "", phases)
    return replace(made, **changes)


def figures(mebibytes: int) -> Figures:
    """So much allocated, a tenth more reserved, a second, and one GiB of RAM."""
    return Figures(mebibytes * MIB, mebibytes * MIB * 11 // 10, 1.0, 1024 * MIB)
