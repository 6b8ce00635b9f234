"""The page of a strategy: its docstring, its settings, what it refuses, and its measured proof."""

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

from memplan.faces.report import help
from memplan.strategies import STRATEGIES
from memplan.strategy import Strategy
from tests.pages import proof
from tests.pages.refusals import refusals
from tests.readme import ROOT

FOLDER = ROOT / "strategies" / "pages"
WRITTEN = "<!-- Written by `python -m tests.pages` from {} and what is measured: change those. -->"

JUDGED = (
    "Compared with everything on the device, by [memplan compare](../../tests/compare/judged.csv) on the CPU. The "
    "weights are random, so that this shows that it acts and how far, not what it does to the pictures of a trained "
    "model:"
)


def pages() -> dict[Path, str]:
    """Every page by its file."""
    return {FOLDER / f"{cls.name}.md": page(cls) for cls in STRATEGIES}


def page(cls: type[Strategy]) -> str:
    """The page of one strategy."""
    told = cleandoc(cls.__doc__ or "").replace("<", r"\<")
    source = f"strategies/{cls.__module__.rpartition('.')[2]}.py"
    parts = (WRITTEN.format(source), f"# {cls.name}", told, *_typed(cls), *_refused(cls), *_proved(cls))
    return "\n\n".join(parts) + "\n"


def _typed(cls: type[Strategy]) -> Iterator[str]:
    yield "## Settings"
    rows = [_row(*setting) for setting in help.settings(cls)]
    yield "\n".join(["| setting | type | when left out |", "|---|---|---|", *rows]) if rows else "It has none."
    yield f'```bash\nmemplan price MODEL --with "{help.typed(cls)}"\n```'
    if cls.known_as:
        yield f"Also known as {', '.join(f'`{word}`' for word in cls.known_as)}."
    if cls.needed():
        yield f"Needs {cls.needed()}."
    yield f"Can't be undone: {cls.irreversible}." if cls.irreversible else "It can be undone."


def _row(name: str, kind: str, default: str) -> str:
    value = default.removesuffix(" when left out")
    value = f"`{value.removeprefix('default ')}`" if value.startswith("default ") else value
    return f"| `{name}` | `{kind}` | {value} |".replace(" | None`", r" \| None`")


def _refused(cls: type[Strategy]) -> Iterator[str]:
    sentences, passes_on = refusals(cls)
    yield "## What it refuses"
    if sentences:
        yield "Each with its sentence; {…} is what a run fills in."
        yield "\n".join(f"- {sentence}" for sentence in sentences)
    if passes_on:
        yield "It passes on what probes found: what this machine lacks, or what the libraries do not do for this model."
    if not (sentences or passes_on):
        yield "Nothing."


def _proved(cls: type[Strategy]) -> Iterator[str]:
    yield "## Measured"
    rows, seconds = proof.memory(cls), proof.seconds(cls)
    if rows:
        yield "Peaks of memory that others published, and how far the predictions are off:"
        yield "\n".join(rows)
    if seconds:
        yield f"Seconds, from datasheets: {seconds}."
    if not (rows or seconds):
        yield "No published figure that is used here has it, and no GPU of ours has run it."
    compared = proof.judged(cls)
    if compared:
        yield JUDGED
        yield "\n".join(f"- {line}" for line in compared)
    yield "What it does to a pipeline is held by tests on the CPU:"
    yield "\n".join(f"- {line}" for line in proof.tests(cls))
