"""Prices the cases of a matrix, and keeps each row in its file as soon as it is there."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memplan.errors import BadInput
from memplan.faces import api
from memplan.faces.matrix.case import FITS, NOTHING_FITS, REFUSED, Case, Row
from memplan.faces.matrix.file import read, write
from memplan.faces.matrix.version import program
from memplan.faces.matrix.workers import worked
from memplan.facts import GIB
from memplan.planner import Plan
from memplan.planner.label import label


class Matrix:
    """The rows of cases as far as they are priced: in memory, and in a CSV file where one is named.

    Rows of the file that answer other cases stay in it. Those that another state of memplan or of the libraries has
    priced are made anew, and so are those of calls that were refused. Raises BadInput for a file of anything else.
    """

    def __init__(self, cases: Sequence[Case], file: Path | None = None) -> None:
        self.cases, self._file = list(cases), file
        self._kept = {row.case: row for row in (read(Row, file) if file else [])}
        self._done = {c for c, row in self._kept.items() if row.program == program() and row.verdict != REFUSED}

    @property
    def rows(self) -> list[Row]:
        """The rows of the cases that are priced, in the order of the cases."""
        return [self._kept[case] for case in self.cases if case in self._done]

    @property
    def missing(self) -> list[Case]:
        """The cases that are not."""
        return [case for case in self.cases if case not in self._done]

    def price(self, processes: int = 1) -> Iterator[Row]:
        """Prices what is missing, case by case, the first of each model before its others. Raises as `worked` does."""
        missing = self.missing
        groups = [[case for case in missing if case.model == name] for name in dict.fromkeys(c.model for c in missing)]
        for case, row in worked(groups, row_of, processes):
            self._kept[case] = row
            self._done.add(case)
            if self._file:
                write(self._file, Row, self._in_order())
            yield row

    def _in_order(self) -> list[Row]:
        own = [self._kept[case] for case in self.cases if case in self._kept]
        asked = set(self.cases)
        return [*own, *(row for case, row in self._kept.items() if case not in asked)]


# ---- one case --------------------------------------------------------------------------------------------------------
def row_of(case: Case) -> Row:
    """What is recommended for a case; of a call that is refused, the sentence that says so."""
    reading: dict[str, Any] = {"target": case.target, "dtype": case.dtype or None, "variant": case.variant}
    try:
        found = api.recommend(case.model, **reading, **case.arguments)
    except BadInput as refusal:
        return _row(case, verdict=REFUSED, why=str(refusal))
    pick = found.pick(case.prefer)
    if pick is None:
        missing = ", and ".join(map(str, found.nearest.shortages))
        return _row(case, verdict=NOTHING_FITS, why=f"The nearest plan needs {missing}.")
    return _row(case, verdict=FITS, **_figures(pick))


def _figures(plan: Plan) -> dict[str, Any]:
    bill = plan.bill
    return {
        "plan": label(plan.strategies, plan.run.facts),
        "seconds": round(bill.seconds, 3),
        "vram_gib": round(bill.peak.memory.required / GIB, 3),
        "ram_gib": round(bill.host.peak / GIB, 3),
        "traffic_gib": round(bill.traffic.link / GIB, 3),
        "loss": bill.loss.word,
        "error": round(bill.loss.error, 6),
        "tiles": bill.loss.tiles,
    }


def _row(case: Case, **found: Any) -> Row:
    return Row(**asdict(case), program=program(), **found)
