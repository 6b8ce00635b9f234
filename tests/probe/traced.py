"""One function traced as inside a component: fake tensors in, the recording out."""

from collections.abc import Callable
from typing import Any

import torch

from memplan.probe.fake import fresh_mode
from memplan.probe.kernels import Kernels
from memplan.probe.ledger import Ledger, Recording
from memplan.probe.tracker import Tracker


class Traced:
    """`function(*inputs)` on fake copies of `inputs`. `peak` is in bytes above the inputs."""

    def __init__(self, function: Callable[..., Any], *inputs: torch.Tensor, device: str = "cuda") -> None:
        ledger, mode = Ledger(unit=1), fresh_mode()
        self.kernels = Kernels(ledger, device)
        fakes = [mode.from_tensor(t) for t in inputs]
        for fake in fakes:
            ledger.admit(fake)
        with torch.no_grad(), self.kernels, mode, Tracker(ledger, device):
            ledger.begin()
            self.out = function(*fakes)
        self.recording: Recording = ledger.recording

    @property
    def peak(self) -> int:
        return max(stretch.peak for stretch in self.recording.stretches)

    @property
    def ops(self) -> list[str]:
        return list(self.recording.ops)

    @property
    def flops(self) -> int:
        return sum(stretch.flops for stretch in self.recording.stretches)
