"""How long a recommendation takes, and how much memory: `python -m tests.performance`. A benchmark, not a test.

`python -m tests.performance curves` prints what a dry run costs by size, frames and blocks;
`python -m tests.performance beside` puts it beside PyTorch's MemTracker.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from memplan.faces.api import Target, facts
from memplan.faces.store import VARIABLE
from memplan.facts import MIB, Facts
from memplan.planner import draw
from memplan.registry import strategies

MODEL = "flux.1-dev"
CALL = {"prompt": "a dog", "height": 1024, "width": 1024}
TARGET = Target(gpu="RTX 4090", ram=64.0)
SECONDS = 3.0
"""How long plans are priced for."""
ASK = """
import json, resource, sys
from memplan.faces.api import Target, recommend
found = recommend("{model}", target=Target(gpu="{gpu}", ram={ram}), **{call})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({{"plans": len(found.front), "peak": peak, "torch": "torch" in sys.modules}}))
"""


def main() -> None:
    """Measure and print what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.performance", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("recommend", "curves", "beside"), default="recommend")
    what = parser.parse_args().what
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for line in lines(what):
        print(line, flush=True)


def lines(what: str) -> Iterator[str]:
    """What to print for the word of the command line."""
    if what == "curves":
        from tests.performance import curves

        return curves.lines()
    if what == "beside":
        from tests.performance import beside_torch

        return beside_torch.lines()
    return recommendations()


def recommendations() -> Iterator[str]:
    """Time and memory of a recommendation, and plans priced per second."""
    with tempfile.TemporaryDirectory() as folder:
        for title in ("from nothing", "from the cache"):
            wall, answer = ask(Path(folder))
            torch = "with" if answer["torch"] else "without"
            yield f"{MODEL} recommend, {title}: {wall:.2f} s, peak {answer['peak'] / MIB:.0f} MiB, {torch} torch"
        os.environ[VARIABLE] = folder
        yield f"{prices_per_second(facts(MODEL, CALL, target=TARGET)):.0f} plans priced per second"


def ask(cache: Path) -> tuple[float, dict[str, int]]:
    """Seconds that a new process takes for a recommendation, and what it says of itself."""
    program = ASK.format(model=MODEL, gpu=TARGET.gpu, ram=TARGET.ram, call=CALL)
    start = perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env={**os.environ, VARIABLE: str(cache)}, check=True, capture_output=True, text=True)
    return perf_counter() - start, json.loads(done.stdout.splitlines()[-1])


def prices_per_second(measured: Facts) -> float:
    """Plans of two of the catalogue's variants, drawn and priced; a first round, which fills caches, is not counted."""
    variants = [variant for kind in strategies() for variant in kind.variants(measured)]
    plans = [(a, b) for a in variants for b in variants if not a.seats & b.seats]
    for plan in plans:
        draw(measured, plan)
    count, start = 0, perf_counter()
    while perf_counter() - start < SECONDS:
        draw(measured, plans[count % len(plans)])
        count += 1
    return count / (perf_counter() - start)


if __name__ == "__main__":
    main()
