"""A pipeline of random weights, loaded under a plan in a process of its own that watches what it holds.

    python -m tests.simulator.large FOLDER DTYPE PLAN [FILE]

prints, in bytes, the most anonymous memory and the most resident memory above what there was before loading. FILE is a
checkpoint of which the transformer is loaded with from_single_file().
"""

import ctypes
import gc
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import diffusers
import torch
import transformers

from memplan.applier import apply
from memplan.faces.assembled import assembled
from memplan.facts import Facts, Gpu, Host, Machine, Model, Trace
from memplan.planner import Plan, draw
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.registry import parse_plan
from tests.pipelines.parts import SIZES, clip, flow, tokenizer

ENDLESS = 1 << 50
PAUSE = 0.002
"""Seconds between two looks."""


def write(folder: Path, dtype: torch.dtype, width: int, shards: str) -> Path:
    """Saves a FLUX whose transformer is `width` wide, its T5 encoder two thirds as wide, in files of `shards` each."""
    heads, text = width // 128, width // 3 * 2
    transformer = _filled(lambda: diffusers.FluxTransformer2DModel(
        num_layers=1, num_single_layers=2, attention_head_dim=128, num_attention_heads=heads, joint_attention_dim=text,
        pooled_projection_dim=SIZES["tiny"].text, guidance_embeds=True,
    ), dtype)  # fmt: skip
    t5 = _filled(lambda: transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=8192, d_model=text, d_kv=64, d_ff=5 * text // 2, num_layers=6, num_heads=text // 64,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False,
    )), dtype)  # fmt: skip
    vae: Any = diffusers.AutoencoderKL(latent_channels=16, norm_num_groups=4, block_out_channels=(8,))
    vae.to(dtype)
    made: Any = diffusers.FluxPipeline  # type checkers take its annotations for classes
    pipe = made(flow(), vae, clip(SIZES["tiny"]).to(dtype), tokenizer(32), t5, tokenizer(32), transformer)
    pipe.save_pretrained(folder, max_shard_size=shards)
    return folder


def _filled(make: Any, dtype: torch.dtype) -> torch.nn.Module:
    with torch.device("meta"):
        part: torch.nn.Module = make()
    part = part.to(dtype).to_empty(device="cpu")
    if isinstance(part, transformers.PreTrainedModel):
        part.tie_weights()  # to_empty() parts what is tied, and both would be saved and loaded
    for weight in part.parameters():
        weight.data.normal_(std=0.02)
    return part


def planned(folder: Path, dtype: str, plan: str, file: str = "") -> Plan:
    """The plan for the pipeline in `folder`, converted on the CPU; no call is planned."""
    host = Machine(Gpu("CPU", ENDLESS, ENDLESS, kind="cpu"), Host(ENDLESS, ENDLESS))
    facts = Facts(host, _model(folder, dtype, file), Trace("cpu", (), ()))
    return draw(facts, parse_plan(plan, facts) if plan else ())


def _model(folder: Path, dtype: str, file: str) -> Model:
    twin = open_pipeline(folder, dtype)
    return measure(twin.pipe, twin.name, twin.source, {"transformer": file} if file else {}, twin.cast)


# ---- the process that is watched -------------------------------------------------------------------------------------
def _held() -> tuple[int, int]:
    """Anonymous and resident memory of this process in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text("ascii").splitlines())
    table = {words[0]: int(words[1]) * 1024 for words in lines if words[0] in ("RssAnon:", "VmRSS:")}
    return table["RssAnon:"], table["VmRSS:"]


def main(folder: str, dtype: str, plan: str, file: str = "") -> None:
    """Load, apply, and say what it took."""
    chosen = planned(Path(folder), dtype, plan, file)
    _imported(chosen)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, peaks, done = _held(), [0, 0], Event()

    def watch() -> None:
        while not done.is_set():
            for number, held in enumerate(_held()):
                peaks[number] = max(peaks[number], held)
            done.wait(PAUSE)

    watching = Thread(target=watch, daemon=True)
    watching.start()
    pipe = assembled(chosen.run.facts.model, lambda _: None)
    apply(chosen.strategies, pipe, "cpu")
    done.set()
    watching.join()
    print(*(peak - there for peak, there in zip(peaks, before, strict=True)))


def _imported(plan: Plan) -> None:
    """Has the libraries of the plan loaded, which are not the pipeline's memory, by converting one small layer."""
    for strategy in plan.strategies:
        small = torch.nn.Sequential(torch.nn.Linear(64, 64, dtype=torch.bfloat16))
        type(strategy)("part").apply(type("Pipe", (), {"part": small}), "cpu")  # type: ignore[call-arg]


if __name__ == "__main__":
    main(*sys.argv[1:])
