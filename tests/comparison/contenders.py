"""What memplan is held against: each contender names a plan for the facts, in memplan's words."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from memplan.facts import Facts
from memplan.registry import EVERYTHING
from tests.comparison import chart
from tests.comparison.parts import heavy, joined, willing

Contender = Callable[[Facts], str]
SPEED, QUALITY = "memplan speed", "memplan quality"
"""The picks of memplan that rows are of; others are held against the first."""


def nf4(facts: Facts) -> str:
    """The denoiser and the largest text encoder in 4 bits, and model offload."""
    return joined((f"bnb_4bit:{','.join(heavy(facts))}", "model_offload"))


def tiled(facts: Facts) -> str:
    """Model offload, and tiles where the library's size of tile changes anything; elsewhere its switch does nothing."""
    return joined(("vae_tiling:vae" if willing(facts, "vae_tiling:vae") else "", "model_offload"))


CONTENDERS: Mapping[str, Contender] = MappingProxyType(
    {
        "skill's chart": chart.offloading,
        "skill's chart, quantizing": chart.quantizing,
        "group offload, stream": chart.streamed,
        "all on the GPU": lambda facts: EVERYTHING,
        "model offload": lambda facts: "model_offload",
        "model offload, tiles": tiled,
        "sequential offload": lambda facts: "sequential_offload",
        "nf4, model offload": nf4,
    }
)
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        QUALITY: "the least loss that fits, and of those the fastest",
        "skill's chart": "the decision chart of diffusers' optimizations skill (pull request 13381), its casting and "
        "offloading path, which ends in quantization where nothing else is left",
        "skill's chart, quantizing": "the same chart's path of quantization: of int8 and nf4, on the GPU or with model "
        "offload, the first that fits by its estimates",
        "group offload, stream": "diffusers' group offload at leaf level with a stream, of denoisers and text encoders",
        "all on the GPU": '`pipe.to("cuda")`',
        "model offload": "`enable_model_cpu_offload()`",
        "model offload, tiles": "the same, and `vae.enable_tiling()`",
        "sequential offload": "`enable_sequential_cpu_offload()`",
        "nf4, model offload": "bitsandbytes' nf4 of the denoiser and the largest text encoder, and model offload",
    }
)
