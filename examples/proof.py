"""Proves predictions and plans on a small real FluxPipeline with random weights, on the CPU, in seconds.

It dry-runs a call, then runs the same call for real and holds each predicted peak against the one torch.profiler saw;
then it applies two plans, undoes them, and compares the pictures bit by bit. Exit code 1 if a peak is more than 1 % off
or a picture differs.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

# Before torch is imported: the profiler announces each start and stop, and threads that wait keep busy cores busy.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.profiler import ProfilerActivity, profile

from memplan import Facts, Machine, Plan
from memplan.applier import apply
from memplan.facts import GIB, MIB, Gpu, Host, Trace
from memplan.planner import draw, seated
from memplan.registry import parse

TOLERANCE = 0.01
PLANS = ("model_offload", "group_offload:transformer")
DOORS = {
    "text_encoder": "forward",
    "text_encoder_2": "forward",
    "transformer": "forward",
    "vae": "decode",
}
"""The component calls of a FluxPipeline, in order."""


# ---- a small pipeline ------------------------------------------------------------------------------------------------
def small_flux() -> Any:
    """A FluxPipeline of 19 million random weights."""
    torch.manual_seed(0)
    clip = transformers.CLIPTextConfig(
        vocab_size=512, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    t5 = transformers.T5Config(
        vocab_size=512, d_model=256, d_kv=64, d_ff=512, num_layers=4, num_heads=4, feed_forward_proj="gated-gelu",
        pad_token_id=0, eos_token_id=2, is_encoder_decoder=False,
    )  # fmt: skip
    levels = (32, 64, 128, 128)
    vae: dict[str, Any] = {
        "block_out_channels": levels, "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": 0.36, "shift_factor": 0.1,
    }  # fmt: skip
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=4, num_attention_heads=4, attention_head_dim=64,
        axes_dims_rope=(16, 24, 24), joint_attention_dim=256, pooled_projection_dim=256, guidance_embeds=True,
    )  # fmt: skip
    pipe: Any = diffusers.FluxPipeline(
        transformer=transformer, vae=diffusers.AutoencoderKL(**vae),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=transformers.CLIPTextModel(clip).eval(), tokenizer=byte_tokenizer(77),
        text_encoder_2=transformers.T5EncoderModel(t5).eval(), tokenizer_2=byte_tokenizer(512),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def byte_tokenizer(length: int) -> Any:
    """A tokenizer of bytes, made in memory."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend: Any = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def call() -> dict[str, Any]:
    """The arguments of the call; the generator is new each time, so that each run draws the same noise."""
    return {
        "prompt": "a lighthouse at dusk", "height": 192, "width": 192, "num_inference_steps": 2,
        "max_sequence_length": 64, "output_type": "pt", "generator": torch.Generator().manual_seed(0),
    }  # fmt: skip


# ---- predicted and measured ------------------------------------------------------------------------------------------
def predicted_peaks(trace: Trace) -> dict[str, int]:
    """The peak of each component's call in bytes, by the dry run."""
    return {c.component: c.peak_segment.peak for c in trace.calls if DOORS.get(c.component) == c.method}


def measured_peaks(pipe: Any) -> tuple[torch.Tensor, dict[str, int]]:
    """The picture of a real run, and the peak of each component's first call in bytes, as torch.profiler saw it."""
    peaks: dict[str, int] = {}

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if name in peaks:
                return real(*args, **kwargs)
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                result = real(*args, **kwargs)
            peaks[name] = highest(profiler)
            return result

        return run

    for name, method in DOORS.items():
        part = getattr(pipe, name)
        part.__dict__[method] = watched(name, getattr(part, method))
    try:
        return picture(pipe), peaks
    finally:
        for name, method in DOORS.items():
            del getattr(pipe, name).__dict__[method]


def highest(profiler: Any) -> int:
    """The most bytes that the profiled allocations held at once."""
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def picture(pipe: Any) -> torch.Tensor:
    """The picture of one call."""
    image: torch.Tensor = pipe(**call())[0]
    return image


# ---- plans -----------------------------------------------------------------------------------------------------------
def plans(pipe: Any, trace: Trace) -> list[Plan]:
    """Everything on the device, and the plans to prove. The device is made up and of kind "cpu": they run here."""
    from memplan.probes.pipeline import measure

    machine = Machine(Gpu("a device", total=GIB, free=GIB, kind="cpu"), Host(total=GIB, available=GIB))
    facts = Facts(machine, measure(pipe), trace)
    return [draw(facts, ()), *(seated(facts, [parse(name, facts)]) for name in PLANS)]


def hooks(pipe: Any) -> int:
    """How many modules of the pipeline carry a hook of accelerate or diffusers."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    modules = [module for part in parts for module in part.modules()]
    registries: list[Any] = [getattr(module, "_diffusers_hook", None) for module in modules]
    return sum(hasattr(module, "_hf_hook") for module in modules) + sum(bool(r and r.hooks) for r in registries)


# ---- the proof -------------------------------------------------------------------------------------------------------
def prove_peaks(pipe: Any, trace: Trace) -> tuple[torch.Tensor, bool]:
    """Print predicted and measured peaks; the picture of the real run, and whether the peaks agree."""
    image, measured = measured_peaks(pipe)
    predicted = predicted_peaks(trace)
    errors = {name: predicted[name] / measured[name] - 1 for name in DOORS}
    print(f"{'Peak of each call, in bytes':<28}{'predicted':>12}{'measured':>12}{'error':>11}")
    for name, method in DOORS.items():
        print(f"  {f'{name}.{method}':<26}{predicted[name]:>12,}{measured[name]:>12,}{errors[name]:>+11.4%}")
    return image, all(abs(error) <= TOLERANCE for error in errors.values())


def prove_plan(pipe: Any, plan: Plan, expected: torch.Tensor) -> bool:
    """Apply and undo `plan`; whether the picture stays the same bit by bit, and no hook is left."""
    with apply(plan.strategies, pipe, "cpu"):
        hooked, during = hooks(pipe), torch.equal(picture(pipe), expected)
    left, after = hooks(pipe), torch.equal(picture(pipe), expected)
    peak = plan.bill.peak.memory.allocated / MIB
    print(f"  {plan!s:<26}{peak:>8.1f} MiB  applied: {hooked:>3} hooks, {same(during)}; undone: {left}, {same(after)}")
    return hooked > 0 and left == 0 and during and after


def same(equal: bool) -> str:
    """A comparison in words."""
    return "same picture" if equal else "ANOTHER PICTURE"


def main() -> int:
    """Prove it and say so; the value is the exit code."""
    logging.disable(logging.WARNING)  # the probe loads what diffusers would load only when needed, and some of it warns
    from memplan.probes.sources import open_pipeline
    from memplan.probes.trace import dry_run

    pipe = small_flux()
    trace = dry_run(open_pipeline(pipe), call(), device="cpu")
    expected, true = prove_peaks(pipe, trace)
    everything, *others = plans(pipe, trace)
    print("\nPredicted peak of device memory, and the real picture")
    print(f"  {'everything on the device':<26}{everything.bill.peak.memory.allocated / MIB:>8.1f} MiB")
    proved = all([true, *(prove_plan(pipe, plan, expected) for plan in others)])
    print("\nProved." if proved else "\nNOT proved.")
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
