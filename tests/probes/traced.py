"""One function traced as inside a component: fake tensors in, the recording out."""

from collections.abc import Callable
from typing import Any

import torch

from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.values import Source, carries, keep
from memplan.probes.trace.backends import backends
from memplan.probes.trace.kernels import Kernels
from memplan.probes.trace.ledger import Ledger, Recording
from memplan.probes.trace.tracker import Tracker


class Traced:
    """`function(*inputs)` on fake copies of `inputs`. `peak` is in bytes above the inputs."""

    def __init__(
        self,
        function: Callable[..., Any],
        *inputs: torch.Tensor,
        device: str = "cuda",
        capability: tuple[int, int] = (8, 0),
    ) -> None:
        ledger, mode = Ledger(unit=1), fresh_mode()
        fakes = [mode.from_tensor(t) for t in inputs]
        self.sources = [Source(t) for t in inputs]
        for fake, source in zip(fakes, self.sources, strict=True):
            ledger.admit(fake)
            if carries(source.value):
                keep(fake, source.value.clone(), [source])
        kernels, others = Kernels(ledger, device, capability), backends(ledger, device, capability)
        with torch.no_grad(), others, kernels, mode, Tracker(ledger, device):
            ledger.begin("part")
            self.out = function(*fakes)
        self.assumptions = list(ledger.assumptions)
        self.recording: Recording = ledger.recording

    @property
    def peak(self) -> int:
        return max(stretch.peak for stretch in self.recording.stretches)

    @property
    def ops(self) -> list[str]:
        return list(self.recording.ops)

    @property
    def flops(self) -> int:
        return sum(s.flops for s in self.recording.segments())
