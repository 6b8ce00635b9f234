"""A training step: what is trained in it, how, and with which optimizer."""

from dataclasses import dataclass, field, replace
from math import prod

from memplan.facts.model import ITEM_SIZE

FULL, LORA = "full", "lora"
KINDS_OF_TRAINING = (LORA, FULL)
"""Adapters beside some linear layers, or all weights."""
ADAMW, ADAMW_8BIT, ADAFACTOR, SGD, SGD_MOMENTUM = "adamw", "adamw8bit", "adafactor", "sgd", "sgd_momentum"
OPTIMIZERS = (ADAMW, ADAMW_8BIT, ADAFACTOR, SGD, SGD_MOMENTUM)
"""torch's AdamW, bitsandbytes' AdamW8bit, transformers' Adafactor, and torch's SGD without and with momentum."""


AUTOCASTS = {"bf16": "bfloat16", "fp16": "float16"}
"""The dtypes that torch.autocast casts to, by how people type them."""
ACCUMULATE = "accumulate"
"""The method of a forward and backward that finds gradients, to which it adds; that of the first is "forward"."""


@dataclass(frozen=True)
class Training:
    """A training step as people ask for it.

    `kind` is "lora" or "full". `component` is what is trained, "" the denoiser; `batch` are the samples that one
    forward is given, None for one in a pipeline, and for as many as a module is given. `accumulate` forwards and
    backwards make one step of the `optimizer`. With `ema` averages of the trained weights are kept on the device. A
    LoRA has `rank`, and `targets` are the names of the layers that it adapts; () for those that are usual for the
    model. `autocast` is the dtype in which torch.autocast has the forward compute, "bfloat16" or "float16"; "" without.
    """

    kind: str = LORA
    batch: int | None = None
    optimizer: str = ADAMW
    accumulate: int = 1
    ema: bool = False
    rank: int = 16
    targets: tuple[str, ...] = ()
    component: str = ""
    autocast: str = ""

    @property
    def traced(self) -> "Training":
        """What of it decides the dry run: neither the optimizer nor averages, and only whether gradients add up."""
        own = replace(self, optimizer=ADAMW, ema=False, accumulate=min(self.accumulate, 2))
        return own if self.kind == LORA else replace(own, rank=0, targets=())

    def __str__(self) -> str:
        """In words, as a report shows it."""
        kind = f"a LoRA of rank {self.rank}" if self.kind == LORA else "all weights"
        adapted = f" beside {', '.join(self.targets)}" if self.targets and self.kind == LORA else ""
        added = f", gradients of {self.accumulate} batches added up" if self.accumulate > 1 else ""
        averaged = ", averages of the trained weights (EMA)" if self.ema else ""
        cast = f", autocast to {self.autocast}" if self.autocast else ""
        return f"{kind}{adapted}, {self.optimizer}{added}{averaged}{cast}"


@dataclass(frozen=True)
class Trained:
    """One parameter that is trained; those of adapters are among them."""

    name: str
    shape: tuple[int, ...] = field(default=())
    dtype: str = "float32"

    @property
    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameter, and of its gradient."""
        return self.numel * ITEM_SIZE[self.dtype]
