"""The summary of a benchmark: predicted beside measured, for each model and cap."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import median

from memplan.facts import GIB
from tests.accuracy.benchmark.case import ABSENT, OOM, RAN, Case, Entry, Machine, Result

INTRO = """\
# Predicted and measured, under memory caps

Full-size models with random weights, each case in a process of its own. "predicted" is memplan's bill of the same plan
for this machine with the capped memory; "first" is the cold call and "steady" the median of the others. Peaks are those
of PyTorch's allocator over all calls, in GiB. Reserved memory is predicted for a card with room to spare: under a cap
the allocator gives back what it can, and reserves no more than the cap allows. What has no plan in memplan's words is
not priced. Random weights change no peak; pictures are noise."""
REHEARSED = "**A rehearsal on the CPU: no device was measured, and seconds say nothing about one.**"
HEAD = (
    "way", "fits", "outcome", "allocated", "predicted", "error", "reserved", "predicted", "outside", "first s",
    "steady s", "predicted s", "error", "loss",
)  # fmt: skip
BLANK = "-"


def sheet(entries: Sequence[Entry]) -> str:
    """The whole file."""
    return "\n".join([INTRO, "", *_machines(entries), *_summary(entries), *_tables(entries), *_notes(entries)]) + "\n"


def _machines(entries: Iterable[Entry]) -> Iterator[str]:
    if any(case.device == "cpu" for case, _, _ in entries):
        yield REHEARSED
        yield ""
    for machine in dict.fromkeys(machine for _, _, machine in entries):
        yield f"- {_described(machine)}"
    yield ""


def _described(machine: Machine) -> str:
    parts = (machine.date, machine.gpu, machine.driver, machine.computer, machine.versions)
    return "; ".join(filter(None, parts))


# ---- in short --------------------------------------------------------------------------------------------------------
def _summary(entries: Sequence[Entry]) -> Iterator[str]:
    priced = [result for _, result, _ in entries if result.predicted_fits is not None]
    for said, fits in (("fit", True), ("not fit", False)):
        of = [result for result in priced if result.predicted_fits is fits]
        ran, out = sum(result.outcome == RAN for result in of), sum(result.outcome == OOM for result in of)
        outcomes = f"{ran} ran, {out} ran out of memory, {len(of) - ran - out} failed"
        yield f"- predicted to {said}: {len(of)}, of which {outcomes}"
    yield _errors("allocated peak", [_error(r.predicted_allocated, r.allocated) for r in priced if r.outcome == RAN])
    yield _errors("steady seconds", [_error(r.predicted_seconds, r.steady) for r in priced if r.outcome == RAN])
    yield ""


def _error(ours: float | None, real: float | None) -> float | None:
    """The relative error of a prediction; 0.01 is one percent too high. None where there is nothing to compare."""
    return ours / real - 1 if ours is not None and real else None


def _errors(what: str, found: Iterable[float | None]) -> str:
    errors = sorted((error for error in found if error is not None), key=abs)
    if not errors:
        return f"- {what}: none measured"
    middle = median(map(abs, errors))
    return f"- {what}: n {len(errors)}, median {middle:.2%} off, worst {errors[-1]:+.2%}"


# ---- tables ----------------------------------------------------------------------------------------------------------
def _tables(entries: Sequence[Entry]) -> Iterator[str]:
    ordered = sorted(entries, key=lambda entry: _group(entry[0]))
    for (model, cap, steps, _), found in groupby(ordered, key=lambda entry: _group(entry[0])):
        yield f"## {model}, {f'{cap:g} GiB' if cap else 'no cap'}, {steps} steps"
        yield ""
        yield f"| {' | '.join(HEAD)} |"
        yield f"|{'---|' * len(HEAD)}"
        yield from (f"| {' | '.join(_cells(case, result))} |" for case, result, _ in found)
        yield ""


def _group(case: Case) -> tuple[str, float, int, str]:
    return case.model, case.cap, case.steps, case.device


def _cells(case: Case, result: Result) -> list[str]:
    fits = {True: "yes", False: "no", None: BLANK}[result.predicted_fits]
    peaks = (_gib(result.allocated), _gib(result.predicted_allocated))
    memory = (*peaks, _percent(_error(result.predicted_allocated, result.allocated)))
    reserved = (_gib(result.reserved), _gib(result.predicted_reserved), _gib(result.outside))
    seconds = (_seconds(result.first), _seconds(result.steady), _seconds(result.predicted_seconds))
    error = _percent(_error(result.predicted_seconds, result.steady))
    return [case.way, fits, result.outcome, *memory, *reserved, *seconds, error, result.loss or BLANK]


def _gib(size: int | None) -> str:
    return BLANK if size is None else f"{size / GIB:.2f}"


def _seconds(seconds: float | None) -> str:
    return BLANK if seconds is None else f"{seconds:.2f}"


def _percent(error: float | None) -> str:
    return BLANK if error is None else f"{error:+.1%}"


def _notes(entries: Iterable[Entry]) -> Iterator[str]:
    yield "## Plans, and what went wrong"
    yield ""
    for case, result, _ in entries:
        where = f"{case.model}, {case.cap:g} GiB, {case.way}"
        if result.plan:
            yield f"- {where}: `{result.plan}`{'. ' + _line(result.note) if result.note else ''}"
        elif result.note and result.outcome != ABSENT:
            yield f"- {where}: {_line(result.note)}"
    absent = sorted({result.note for _, result, _ in entries if result.outcome == ABSENT})
    yield from (f"- {note}" for note in absent)


def _line(text: str) -> str:
    return " ".join(text.split())
