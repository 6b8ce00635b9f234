"""Host memory that real loads take, against what is predicted: pipelines of 2 GiB with random weights, on the CPU.

Each is loaded in a process of its own.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from memplan.facts import MIB
from memplan.simulator.host import LIBRARIES
from memplan.simulator.loading import loading
from tests.simulator.large import planned, write

ROOT = Path(__file__).parents[2]
INT8, NF4 = "int8_weight_only:text_encoder_2,transformer", "bnb_4bit:text_encoder_2,transformer"


@dataclass(frozen=True)
class Saved:
    """A pipeline on disk: stored in `dtype`, `width` wide, in files of `shards`."""

    dtype: str
    width: int
    shards: str

    def write(self, folder: Path) -> Path:
        """Save it in `folder`."""
        return write(folder, getattr(torch, self.dtype), self.width, self.shards)


@dataclass(frozen=True)
class Case:
    """A load of a saved pipeline in `dtype` under `plan`; `alone` has the transformer come by from_single_file()."""

    saved: Saved
    dtype: str
    plan: str = ""
    alone: bool = False

    def file(self, folder: Path) -> str:
        """The file of the transformer where that comes alone."""
        return str(next((folder / "transformer").glob("*.safetensors"))) if self.alone else ""

    def predicted(self, folder: Path) -> int:
        """Bytes of host memory beside the libraries."""
        return loading(planned(folder, self.dtype, self.plan, self.file(folder)).run).host - LIBRARIES

    def measured(self, folder: Path) -> tuple[int, int]:
        """The most anonymous and the most resident memory of a process that loads it, in bytes."""
        words = (str(folder), self.dtype, self.plan, self.file(folder))
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulator.large", *words],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        anonymous, resident = map(int, done.stdout.split())
        return anonymous, resident

    def __str__(self) -> str:
        """What is loaded how."""
        way = "the transformer by from_single_file()" if self.alone else f"files of {self.saved.shards}"
        return f"{self.saved.dtype} as {self.dtype}, {way}, {self.plan.partition(':')[0] or 'no format'}"


SHARDED, ONE, WIDE = Saved("bfloat16", 3072, "400MB"), Saved("bfloat16", 3072, "100GB"), Saved("float32", 2304, "1GB")
CASES = (
    Case(SHARDED, "bfloat16"),
    Case(SHARDED, "bfloat16", INT8),
    Case(SHARDED, "bfloat16", NF4),
    Case(ONE, "bfloat16"),
    Case(ONE, "bfloat16", INT8),
    Case(ONE, "bfloat16", NF4),
    Case(ONE, "bfloat16", NF4, alone=True),
    Case(WIDE, "float32", INT8),
    Case(WIDE, "bfloat16"),
    Case(WIDE, "bfloat16", INT8),
)


def lines() -> Iterator[str]:
    """A row for each case, in 10 to 40 minutes; it takes up to 4 GiB of memory and 3 GiB of disk."""
    yield "predicted   measured"
    yield "      MiB        MiB"
    for saved, cases in groupby(CASES, lambda case: case.saved):
        with TemporaryDirectory() as folder:
            place = saved.write(Path(folder))
            yield from (_row(case, place) for case in cases)


def _row(case: Case, folder: Path) -> str:
    expected = case.predicted(folder)
    taken, _ = case.measured(folder)
    return f"{expected / MIB:9.1f} {taken / MIB:10.1f} {_off(expected, taken):>7}  {case}"


def _off(expected: int, taken: int) -> str:
    return f"{expected / taken - 1:+.1%}" if expected else "none"
