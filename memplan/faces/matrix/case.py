"""A model on a machine, and what is predicted of it: what a file of a matrix has a row for."""

import ast
from dataclasses import dataclass, fields
from typing import Any

from memplan.faces.target import Target

FITS, NOTHING_FITS, REFUSED = "fits", "nothing fits", "refused"
"""The verdicts on a case: a plan is picked, none fits, or the model does not take the call."""


@dataclass(frozen=True)
class Case:
    """What is asked: a source, a card of the catalogue, GiB of host memory, and the rest as `recommend` takes it.

    `call` has the arguments of the call as Python writes a table of them; "" stands for nothing said.
    """

    model: str
    gpu: str
    ram: float
    prefer: str = "balanced"
    call: str = ""
    dtype: str = ""
    variant: str = ""
    reserve: float = 0.0
    limit: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of the call."""
        return ast.literal_eval(self.call) if self.call else {}

    @property
    def target(self) -> Target:
        """The machine."""
        return Target(self.gpu, ram=self.ram, reserve=self.reserve, limit=self.limit)

    def __str__(self) -> str:
        """The model and the machine."""
        return f"{self.model} on {self.gpu}, {self.ram:g} GiB"


@dataclass(frozen=True)
class Row(Case):
    """A case, the verdict on it, and the preferred pick: seconds of a call, GiB of either memory, GiB over the link.

    `error` and `tiles` are those of a bill's Loss. Where nothing is picked `why` says why not, and the figures are
    None. `program` tells the state of memplan and of the libraries that priced it.
    """

    verdict: str = REFUSED
    plan: str = ""
    seconds: float | None = None
    vram_gib: float | None = None
    ram_gib: float | None = None
    traffic_gib: float | None = None
    loss: str = ""
    error: float | None = None
    tiles: int | None = None
    why: str = ""
    program: str = ""

    @property
    def case(self) -> Case:
        """What was asked."""
        return Case(**{field.name: getattr(self, field.name) for field in fields(Case)})
