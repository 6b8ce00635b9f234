"""The dry run beside PyTorch's own tracker of memory, `torch.distributed._tools.mem_tracker.MemTracker`.

Both follow one forward of a FLUX.1 transformer of full width on fake tensors on the CPU. MemTracker counts storages and
knows neither what an op holds while it runs nor the rules of an allocator; it wants parameters that require gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._pytree import tree_map_only

from memplan.catalogue.models import find
from memplan.facts import MIB
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources.modules import ONLY, as_pipeline
from memplan.probes.sources.skeleton import fake_module
from memplan.probes.trace import dry_run

TOKENS = 512
"""Of the prompt."""
PIXELS = 16
"""Side of the patch of an image that is one token."""


@dataclass(frozen=True)
class Measured:
    """What one of the two says of a forward: bytes above weights and arguments at the peak, and its processor time."""

    peak: int
    seconds: float


def transformer(blocks: int) -> Any:
    """FLUX.1's transformer with fake weights, `blocks` double and twice as many single ones."""
    config = find("flux.1-dev").components["transformer"].config
    fewer = {**config, "num_layers": blocks, "num_single_layers": 2 * blocks}
    return fake_module(FluxTransformer2DModel, fewer, torch.bfloat16, fresh_mode())


def arguments(module: Any, side: int) -> dict[str, Any]:
    """What a pipeline gives the transformer for a square picture of `side` pixels."""
    sizes, patches = module.config, (side // PIXELS) ** 2
    return {
        "hidden_states": torch.zeros(1, patches, sizes.in_channels, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.zeros(1, TOKENS, sizes.joint_attention_dim, dtype=torch.bfloat16),
        "pooled_projections": torch.zeros(1, sizes.pooled_projection_dim, dtype=torch.bfloat16),
        "timestep": torch.zeros(1, dtype=torch.bfloat16),
        "guidance": torch.zeros(1),
        "img_ids": torch.zeros(patches, 3, dtype=torch.bfloat16),
        "txt_ids": torch.zeros(TOKENS, 3, dtype=torch.bfloat16),
        "return_dict": False,
    }


def twin_of(module: Any) -> Twin:
    """The twin of a pipeline that calls nothing but this module of fake weights."""
    return Twin(as_pipeline(module), next(module.parameters()).fake_mode, ONLY, ONLY)


def by_memplan(module: Any, given: dict[str, Any]) -> Measured:
    """Of the dry run."""
    twin, start = twin_of(module), process_time()
    trace = dry_run(twin, given, device="cpu")
    seconds = process_time() - start
    (call,) = (call for call in trace.calls if call.component == ONLY)
    return Measured(call.peak_segment.peak, seconds)


def by_torch(module: Any, given: dict[str, Any]) -> Measured:
    """Of MemTracker, started when weights and arguments are there."""
    mode = next(module.parameters()).fake_mode
    module.requires_grad_(True)
    start = process_time()
    with mode, torch.no_grad():
        fakes = tree_map_only(torch.Tensor, mode.from_tensor, given)
        tracker = MemTracker()
        tracker.track_external(module, *(value for value in fakes.values() if isinstance(value, torch.Tensor)))
        cpu = torch.device("cpu")
        before = tracker.get_tracker_snapshot()[cpu]["Total"]
        with tracker:
            result = module(**fakes)
        peak = tracker.get_tracker_snapshot("peak")[cpu]["Total"]
    seconds = process_time() - start
    del result
    module.requires_grad_(False)
    return Measured(peak - before, seconds)


def lines(blocks: int = 2, sides: tuple[int, ...] = (512, 1024)) -> Iterator[str]:
    """Peak and time of both, for square pictures."""
    yield f"{'picture':<12}{'memplan':>12}{'MemTracker':>14}{'memplan':>12}{'MemTracker':>14}"
    for side in sides:
        module = transformer(blocks)
        ours, theirs = by_memplan(module, arguments(module, side)), by_torch(module, arguments(module, side))
        peaks = f"{ours.peak / MIB:>8.1f} MiB{theirs.peak / MIB:>10.1f} MiB"
        yield f"{side:>4} x {side:<5}{peaks}{ours.seconds:>10.2f} s{theirs.seconds:>12.2f} s"
