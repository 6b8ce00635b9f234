"""What each technique does to the outputs of a small pipeline with random weights, on the CPU."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from memplan import planner
from memplan.faces.compare.compare import compared
from memplan.faces.compare.comparison import Comparison
from memplan.faces.compare.running import Caller
from memplan.registry import parse_plan
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.pipelines.pictures import image_encoder

FILE = Path(__file__).parent / "judged.csv"
EQUAL, ROUNDED, CHANGED = "equal", "rounded", "changed"
"""Bit by bit; but for the rounding of sums in another order; in any other way."""
ROUNDING = 1e-4
"""The largest difference of a number of a picture between 0 and 1 that sums in another order make in float32."""


@dataclass(frozen=True)
class Case:
    """A plan of one technique, a pipeline that takes it, what it does to the output, and how the call differs."""

    plan: str
    does: str
    family: str = "flux"
    call: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """The technique."""
        return self.plan.partition(":")[0]


MANY = {"num_inference_steps": 7}
"""Steps enough that a cache skips some."""
CASES = (
    Case("on_gpu:transformer", EQUAL),
    Case("on_cpu", EQUAL),
    Case("model_offload", EQUAL),
    Case("on_demand:transformer", EQUAL),
    Case("set_aside:image_encoder", EQUAL),
    Case("group_offload:transformer", EQUAL),
    Case("partial_residency:transformer,streamed=2", EQUAL),
    Case("sequential_offload", EQUAL),
    Case("layerwise_casting:transformer", CHANGED),
    Case("compute_dtype:transformer,dtype=bfloat16", CHANGED),
    Case("int8_weight_only:transformer", CHANGED),
    Case("int8_dynamic:transformer", CHANGED),
    Case("fp8_weight_only:transformer", CHANGED),
    Case("quanto:transformer", CHANGED),
    Case("modelopt:transformer", CHANGED),
    Case("bnb_8bit:transformer", CHANGED),
    Case("bnb_4bit:transformer", CHANGED),
    Case("vae_tiling:vae,tile=16", CHANGED),
    Case("vae_frame_batching:vae,frames=16", CHANGED, "cogvideox", {"num_frames": 17}),
    Case("vae_slicing", ROUNDED, call={"num_images_per_prompt": 2}),
    Case("attention_slicing", ROUNDED, "sdxl"),
    Case("attention_backend:transformer,backend=_native_math", ROUNDED),
    Case("split_guidance:unet", ROUNDED, "sdxl"),
    Case("batched_guidance:transformer", ROUNDED, "wan"),
    Case("cfg_zero_star:transformer", CHANGED, "wan"),
    Case("channels_last:vae", ROUNDED),
    Case("first_block_cache:transformer,threshold=1e9", CHANGED, call=MANY),
    Case("magcache:transformer,steps=7", CHANGED, call=MANY),
    Case("taylorseer:transformer,interval=3,warmup=1", CHANGED, call=MANY),
    Case("pyramid_attention_broadcast:transformer,spatial=3", CHANGED, call=MANY),
    Case("faster_cache:transformer,distilled=true", CHANGED, call=MANY),
    Case("prompt_reuse", EQUAL, seeds=(0, 1)),
)
"""One for each technique for calls that the CPU can run."""
ELSEWHERE = {
    "int4_weight_only": "torchao packs its weights for CUDA alone",
    "fp8_dynamic": "its kernels are those of CUDA, ROCm and XPU",
    "compile": "tests/strategies/test_compile.py holds what its kernels compute, in minutes",
    "gradient_checkpointing": "it is for training",
    "differentiable_sampling": "it is for calls that keep gradients",
}
"""Why a technique has no case."""


SETTLED = 3.0
"""Decibels by which a PSNR may be off on another processor: near a threshold a rounding decides."""


@dataclass(frozen=True)
class Row:
    """What a case gave: figures as the pages of strategies show them."""

    strategy: str
    plan: str
    pipeline: str
    does: str
    loss: str
    psnr: str
    ssim: str
    difference: str


def judged(case: Case) -> Comparison:
    """The comparison of its plan with everything on the device."""
    pipe = build(case.family)
    if case.name == "set_aside":
        pipe.register_modules(image_encoder=image_encoder())
    facts = facts_of(pipe, kind="cpu")
    plans = planner.draw(facts, ()), planner.draw(facts, parse_plan(case.plan, facts))
    call = {**inputs(case.family), **case.call}
    del call["generator"]
    caller = Caller(pipe, call, case.seeds, 0, lambda message: None)
    return compared(caller, plans, "cpu", predicted=False, check_undo=True, lpips=False)


def row(case: Case, found: Comparison) -> Row:
    """Its figures, and what they say that it does."""
    at = case.name, case.plan, case.family
    if found.equal:
        return Row(*at, EQUAL, found.plan.loss, "", "", "")
    assert found.psnr is not None
    assert found.ssim is not None
    assert found.most is not None
    does = ROUNDED if found.most <= ROUNDING else CHANGED
    return Row(*at, does, found.plan.loss, f"{found.psnr:.1f}", f"{found.ssim:.5f}", f"{found.most:.1g}")


def rows() -> list[Row]:
    """Those of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [Row(**one) for one in csv.DictReader(file)]


def write(found: Iterable[Row]) -> None:
    """Write the file anew."""
    with FILE.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows([asdict(one) for one in found])
