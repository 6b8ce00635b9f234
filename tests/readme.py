"""Fills the sections of README.md that the code decides: `python -m tests.readme [SECTION …]`.

A section lies between <!-- name --> and <!-- /name -->.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMAND = ("recommend", "flux.1-dev", "--gpu", "RTX 4070", "--ram", "32")
SHOWN_ROWS = 2
"""Plans of the front that the README shows."""

LONG = 70
"""Characters of a comment in the tree that need no shortening."""

FOLDERS = {
    "tests/accuracy": "predictions held against published figures and against real runs on this CPU",
    "tests/catalogue": "the GPUs and the bundled models",
    "tests/compare": "pipelines with and without a plan, and what each technique does to their outputs",
    "tests/comparison": "memplan's picks, priced beside what others choose",
    "tests/conformance": "the picture, held against the libraries' real hooks on a pretend device",
    "tests/faces": "the command line, the reports, the cache",
    "tests/history": "runs as they were, beside their predictions",
    "tests/matrix": "many cases, in processes and in a file that a run goes on from",
    "tests/oom": "errors of memory: their texts, what was going on, the answer, and that it changes nothing",
    "tests/pages": "writes the page of each strategy",
    "tests/patching": "scripts of many styles, and what a plan makes of them",
    "tests/performance": "benchmarks",
    "tests/pipelines": "builds small real pipelines with random weights",
    "tests/planner": "the search, held against brute force",
    "tests/probes": "machines, sources, pipelines and dry runs",
    "tests/sampling": "calls that keep gradients, of pipelines and of F5-TTS",
    "tests/simulator": "prices, worked out by hand",
    "tests/strategies": "each technique; tests/test_strategy_laws.py holds what all of them keep to",
    "tests/ui": "the web page, driven in a browser",
}
PAGES = "strategies/pages/"
OTHERS = {
    PAGES: "a page for each strategy: settings, refusals, and what was measured",
    "examples/notebook.ipynb": "plans of Stable Diffusion 1.5 for three cards, in a notebook",
    "memplan/catalogue/components.json": "components that several bundled models share",
    "memplan/catalogue/gpus.json": "the cards",
    "memplan/faces/report/html/charts.js": "axes, phases and figures, as all charts have them",
    "memplan/faces/report/html/expand.js": "the timeline as it was sent, made into one row for each moment",
    "memplan/faces/report/html/front.js": "the front: seconds against device memory",
    "memplan/faces/report/html/lanes.js": "when the GPU, the link and the CPU are busy",
    "memplan/faces/report/html/matrix.css": "the grid of models by cards",
    "memplan/faces/report/html/memory.js": "device memory, stacked, against the limit; host memory",
    "memplan/faces/report/html/page.css": "light, dark, narrow and on paper; the colours of all pictures",
    "memplan/faces/report/html/page.html": "what everything is put into",
    "memplan/faces/report/html/start.js": "draws every chart, and tells what is pointed at",
    "memplan/faces/report/html/theme.js": "light or dark",
    "memplan/faces/report/html/uPlot.LICENSE.txt": "the licence of uPlot",
    "memplan/faces/report/html/uPlot.iife.min.js": "uPlot, as published: draws charts",
    "memplan/faces/report/html/uPlot.min.css": "uPlot's styles",
    "memplan/faces/report/html/vendored.json": "where uPlot comes from, and its hashes",
    "memplan/py.typed": "tells type checkers that memplan is typed",
    "memplan/strategies.pyi": "tells the type checkers of a checkout where strategies/ is installed",
}


# ---- sections --------------------------------------------------------------------------------------------------------
def recommendation() -> str:
    """What `memplan recommend` prints; of the front only the first plans."""
    lines = printed(COMMAND).splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r" +[\d,]+\.\d +\d+\.\d\d +\d+\.\d\d +[\d,]+ ", line)]
    end = next(i for i in range(starts[-1], len(lines)) if not lines[i])
    kept = [*lines[: starts[SHOWN_ROWS]], "  …", *lines[end:]]
    typed = " ".join(f'"{word}"' if " " in word else word for word in COMMAND)
    return "\n".join(["```console", f"$ memplan {typed}", *kept, "```"])


def printed(command: tuple[str, ...]) -> str:
    """What `memplan` prints for these words."""
    from memplan.faces.cli import main

    out = io.StringIO()
    os.environ.pop("COLUMNS", None)  # lines of the usual width, however wide this terminal is
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(command)
    return out.getvalue()


def techniques() -> str:
    """The strategies, from the first lines of their docstrings."""
    from memplan.strategies import STRATEGIES

    rows = [
        f"| [`{cls.name}`](strategies/pages/{cls.name}.md) | {cleandoc(cls.__doc__ or '').partition(chr(10))[0]} |"
        for cls in STRATEGIES
    ]
    return "\n".join(["| Strategy | What it does |", "|---|---|", *rows])


def accuracy() -> str:
    """The page of all rows in short: its summary and its overview by technique."""
    page = (ROOT / "tests" / "accuracy" / "README.md").read_text(encoding="utf-8")
    parts = [page.partition(f"## {head}\n\n")[2].partition("\n#")[0] for head in ("In short", "By technique")]
    return "\n\n".join(part.strip() for part in parts)


def proof() -> str:
    """What examples/proof.py prints."""
    command = [sys.executable, str(ROOT / "examples" / "proof.py")]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return f"```\n{out.rstrip()}\n```"


def tree() -> str:
    """Every file of the sources with what it is for, the folder of pages, and those of tests."""
    files = tracked("memplan", "strategies", "tests", "examples")
    files = list(dict.fromkeys(PAGES if file.startswith(PAGES) else file for file in files))
    tests = sorted({"/".join(file.split("/")[:2]) for file in files if file.count("/") > 1 and file[:6] == "tests/"})
    loose = [file for file in files if file.startswith(("memplan/", "strategies/", "examples/"))]
    rows = [*((file, comment(file)) for file in loose), *((f"{folder}/", FOLDERS[folder]) for folder in tests)]
    rows.append(("tests/test_*.py", "what spans several of these"))
    return "\n".join(["```", *branches(rows), "```"])


SECTIONS: dict[str, Callable[[], str]] = {
    "recommend": recommendation,
    "accuracy": accuracy,
    "proof": proof,
    "strategies": techniques,
    "tree": tree,
}


# ---- the tree --------------------------------------------------------------------------------------------------------
def tracked(*folders: str) -> list[str]:
    """The files in git below `folders`, or all that lie there where there is no git; folders before files."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
        files = listed.stdout.splitlines()
    else:
        found = (file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file())
        files = [file.relative_to(ROOT).as_posix() for file in found if "__pycache__" not in file.parts]
    return sorted(files, key=lambda file: [(part == file.rpartition("/")[2], part) for part in file.split("/")])


def comment(file: str) -> str:
    """What a file is for: the start of its docstring, or for data what is said of it here."""
    path = ROOT / file
    if path.suffix == ".py":
        return opening(path)
    if path.parent.name == "models":
        model: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return f"{model['hub']}, as published"
    return OTHERS.get(file, "")


def opening(path: Path) -> str:
    """The first sentence of a module's docstring; of a long one what stands before a colon or semicolon."""
    first = path.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[0].partition("\n")[0]
    sentence = first.removesuffix(".").partition(". ")[0]
    return re.split("[:;] ", sentence)[0] if len(sentence) > LONG else sentence


def branches(rows: list[tuple[str, str]]) -> Iterator[str]:
    """Paths as an indented tree, each with its comment in one column."""
    open_folders: list[str] = []
    lines: list[tuple[str, str]] = []
    for path, text in rows:
        *folders, name = path.removesuffix("/").split("/")
        shared = 0
        while shared < min(len(folders), len(open_folders)) and folders[shared] == open_folders[shared]:
            shared += 1
        lines += [("  " * depth + folders[depth] + "/", "") for depth in range(shared, len(folders))]
        open_folders = folders
        lines.append(("  " * len(folders) + name + ("/" if path.endswith("/") else ""), text))
    width = max(len(left) for left, _ in lines) + 2
    yield from (f"{left:<{width}}{text}".rstrip() for left, text in lines)


# ---- the file --------------------------------------------------------------------------------------------------------
def section(name: str) -> str:
    """What the README says now between the marks of that name."""
    text = README.read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def fill(name: str) -> None:
    """Write the section anew."""
    before, opened, rest = README.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, closed, after = rest.partition(f"<!-- /{name} -->")
    if not (opened and closed):
        raise SystemExit(f"README.md has no section {name}")
    README.write_text(f"{before}{opened}{SECTIONS[name]()}\n{closed}{after}", encoding="utf-8")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SECTIONS:
        fill(wanted)
        print(f"README.md: {wanted}")
