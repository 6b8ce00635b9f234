"""Writes judged.csv: `python -m tests.compare`. Read what changed, then run `python -m tests.pages`."""

from tests.compare.judging import CASES, judged, row, write

write([row(case, judged(case)) for case in CASES])
