"""What is known of a strategy by measuring: published rows beside their predictions, and the tests that hold it."""

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from memplan.strategies import STRATEGIES
from memplan.strategy import Strategy
from tests.compare.judging import EQUAL, ROUNDED, Row, rows
from tests.readme import ROOT, opening

MEMORY, SECONDS = (ROOT / "tests" / "accuracy" / name for name in ("README.md", "SECONDS.md"))
LAWS = ROOT / "tests" / "test_strategy_laws.py"
FOLDERS = ("strategies", "conformance")
"""Those whose tests hold what a strategy does and draws."""
UP = "../.."
"""From the pages to the root."""


def memory(cls: type[Strategy]) -> list[str]:
    """The lines of the accuracy page's overview whose plans have it, each pointing at its rows."""
    overview = MEMORY.read_text(encoding="utf-8").partition("## By technique\n\n")[2].partition("\n\n")[0]
    head, rule, *lines = overview.splitlines()
    found = [line for line in lines if cls.name in _plan(line)]
    return [head, rule, *map(_linked, found)] if found else []


def _plan(line: str) -> list[str]:
    return line.removeprefix("| ").partition(" |")[0].split(" + ")


def _linked(line: str) -> str:
    """The line with its technique linked to its section, as GitHub names that."""
    title = " + ".join(_plan(line))
    anchor = title.replace("+", "").replace(" ", "-")
    return line.replace(title, f"[{title}]({_link(MEMORY)}#{anchor})", 1)


def seconds(cls: type[Strategy]) -> str:
    """How far predicted seconds are off in the rows whose plans have it; "" where there is none."""
    lines = SECONDS.read_text(encoding="utf-8").splitlines()
    rows = (line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and line.endswith("% |"))
    found = [(float(error.rstrip("%")), name) for name, _, plan, *_, error in rows if _has(plan, cls.name)]
    if not found:
        return ""
    worst, name = max(found, key=lambda row: abs(row[0]))
    middle = median(abs(error) for error, _ in found)
    rows_are = "one published latency" if len(found) == 1 else f"{len(found)} published latencies"
    return f"[{rows_are}]({_link(SECONDS)}): median error {middle:.1f} %, worst {worst:+.1f} % ({name})"


def _has(plan: str, name: str) -> bool:
    return name in {part.partition(":")[0] for part in plan.split()}


def judged(cls: type[Strategy]) -> list[str]:
    """What it did to the outputs of a small pipeline, as sentences; empty where nothing was compared."""
    return [_sentence(row) for row in rows() if row.strategy == cls.name]


def _sentence(row: Row) -> str:
    at = f"`{row.plan}` on a small {row.pipeline}"
    if row.does == EQUAL:
        return f"{at}: outputs are equal bit by bit."
    figures = f"PSNR {row.psnr} dB, SSIM {row.ssim}, the largest difference {row.difference}"
    return f"{at}: {figures}{', which is rounding' if row.does == ROUNDED else ''}."


def tests(cls: type[Strategy]) -> Iterator[str]:
    """The files of tests that name it, without those of another strategy, each with what it is for."""
    named = re.compile(rf"""\b{cls.__name__}\b|["' +]{cls.name}[":]""")
    others = {f"test_{other.name}" for other in STRATEGIES if other is not cls}
    every = [path for folder in FOLDERS for path in sorted((ROOT / "tests" / folder).glob("test_*.py"))]
    found = [p for p in every if p.stem not in others and named.search(p.read_text(encoding="utf-8"))]
    for path in (*sorted(found, key=lambda path: path.stem != f"test_{cls.name}"), LAWS):
        yield f"[{path.relative_to(ROOT).as_posix()}]({_link(path)}): {opening(path)}"


def _link(path: Path) -> str:
    return f"{UP}/{path.relative_to(ROOT).as_posix()}"
