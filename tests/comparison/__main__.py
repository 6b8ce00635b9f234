"""Prices memplan's picks beside what others choose: `python -m tests.comparison [--models …] [--page]`.

A prediction, not a measurement: models, cards and host memories are those of the command line, or 10 models, 8 cards
and 16, 32 and 64 GiB. Every case is written into the CSV file as soon as it is priced, and a run that is cut short goes
on where it was; cases that another state of memplan has priced are done again. `--page` writes the Markdown page beside
the file; where that is complete nothing is priced. A case takes 5 to 100 seconds, after the dry run of its model.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from time import perf_counter

from memplan.faces.api import Target, facts, machine
from memplan.faces.matrix.file import read, write
from memplan.faces.matrix.workers import worked
from memplan.facts import Facts
from tests.comparison.page import page
from tests.comparison.rows import Case, Row, compared, program

HERE = Path(__file__).parent
MODELS = (
    "sd1.5", "sdxl", "sd3.5-large", "flux.1-dev", "flux.2-dev", "qwen-image", "z-image-turbo", "ltx-video",
    "wan2.1-t2v-14b", "hunyuanvideo",
)  # fmt: skip
CARDS = (
    "RTX 2060", "RTX 4060", "RTX 3060 12 GB", "RTX 4070", "RTX 5070 Ti", "RTX 3090", "RTX 4090", "RTX 5090",
)  # fmt: skip
RAMS = (16.0, 32.0, 64.0)
PACKAGES = (
    ("bitsandbytes", "0.50"), ("torchao", "0.18"), ("optimum-quanto", "0.2.7"), ("nvidia-modelopt", "0.47"),
)  # fmt: skip
"""What every machine has, whatever is installed here."""
KERNELS = {"new": "RTX 4070", "old": "Tesla V100 SXM2 16 GB"}
"""A card for either set of attention kernels, for which a dry run is made once."""


def main() -> None:
    """Read the command line, price what is missing, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="bundled names")
    parser.add_argument("--cards", nargs="+", default=list(CARDS), help="names from the catalogue")
    parser.add_argument("--ram", nargs="+", type=float, default=list(RAMS), help="host memories in GiB")
    parser.add_argument("--csv", type=Path, default=HERE / "comparison.csv", help="the file of all rows")
    parser.add_argument("--page", action="store_true", help="write the page beside the file")
    parser.add_argument("--processes", type=int, default=2, help="how many price at once")
    given = parser.parse_args()
    cases = [Case(*case) for case in product(given.models, given.cards, given.ram)]
    rows = [row for row in read(Row, given.csv) if row.program == program()]
    for line in priced(cases, rows, given.csv, given.processes):
        print(line, flush=True)
    if given.page:
        chosen = [row for row in rows if row.case in set(cases)]
        target = given.csv.with_suffix(".md")
        target.write_text(page(chosen, part(cases)), encoding="utf-8")
        print(target)


def part(cases: Sequence[Case]) -> str:
    """What to say of fewer cases than all."""
    every = len(MODELS) * len(CARDS) * len(RAMS)
    whole = {Case(*case) for case in product(MODELS, CARDS, RAMS)} <= set(cases)
    return "" if whole else f"This page is a part: {len(cases)} of the {every} cases of the full comparison."


def priced(cases: Sequence[Case], rows: list[Row], path: Path, processes: int = 1) -> Iterator[str]:
    """Price the cases that `rows` lack, add them, keep the file up to date, and say how far it is."""
    known = {row.case for row in rows}
    missing = [case for case in cases if case not in known]
    groups = [[case for case in missing if case.model == model] for model in dict.fromkeys(c.model for c in missing)]
    start = perf_counter()
    for count, (case, found) in enumerate(worked(groups, rows_of, processes), 1):
        rows += found
        write(path, Row, _in_order(rows, cases))
        took = f"{count} of {len(missing)}, {perf_counter() - start:.0f} s"
        yield f"{took}: {case.model}, {case.card}, {case.ram:g} GiB"


def _in_order(rows: Sequence[Row], cases: Sequence[Case]) -> list[Row]:
    turn = {case: number for number, case in enumerate(cases)}
    return sorted(rows, key=lambda row: turn.get(row.case, len(turn)))


def rows_of(case: Case) -> list[Row]:
    """The rows of one case; the model's dry run is kept in memory, and in memplan's cache."""
    here = replace(machine(Target(gpu=case.card, ram=case.ram)), packages=PACKAGES)
    capability = here.gpu.capability if here.gpu else None
    measured = _measured(case.model, "old" if capability and capability < (8, 0) else "new")
    return compared(case, replace(measured, machine=here))


@lru_cache(maxsize=2)
def _measured(model: str, kernels: str) -> Facts:
    return facts(model, {}, target=Target(gpu=KERNELS[kernels], ram=64))


if __name__ == "__main__":
    main()
