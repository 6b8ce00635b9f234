"""Full-size models with random weights under memory caps: `python -m tests.accuracy benchmark --out FILE.csv`.

For each model, cap and way a process of its own builds the pipeline from the bundled configs, with random weights in
host memory and nothing downloaded, has memplan price the way, carries it out and makes the call. The cap is that of
`torch.cuda.set_per_process_memory_fraction`. Predicted and measured figures go into the file case by case; a run that
is cut short goes on where it was. A summary is written beside it as Markdown.

It needs a CUDA device, and host memory for the models: 34 GB for FLUX.1-dev. `--device cpu` rehearses it with
"small:FAMILY" models, without any figure of a device. **It has not been run on a GPU yet.**
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

from tests.accuracy.benchmark.case import FAILED, Case, Machine, Result, read, write
from tests.accuracy.benchmark.one import MARK
from tests.accuracy.benchmark.sheet import sheet
from tests.accuracy.benchmark.ways import WAYS

ROOT = Path(__file__).parents[3]
MODELS = ("flux.1-dev", "sdxl", "sd3.5-large", "wan2.1-t2v-1.3b")
CAPS = (8.0, 12.0, 16.0, 24.0)
LIBRARIES = (
    "memplan", "torch", "diffusers", "transformers", "accelerate", "torchao", "bitsandbytes", "mmgp", "cache-dit",
)  # fmt: skip


def main(words: Sequence[str]) -> None:
    """Read the command line, run what is missing, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy benchmark", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help='bundled names, or "small:FAMILY"')
    parser.add_argument(
        "--caps", nargs="+", type=float, default=list(CAPS), help="GiB of device memory; 0 is all of it"
    )
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="what is run")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of a call")
    parser.add_argument("--calls", type=int, default=3, help="calls of a case; the first one is cold")
    parser.add_argument("--limit", type=float, default=1800, help="seconds after which a case is given up")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file; the summary is written beside it")
    given = parser.parse_args(words)
    refusal = missing_device(given.device)
    if refusal:
        parser.error(refusal)
    triples = product(given.models, given.caps, given.ways)
    cases = [Case(*triple, given.steps, given.device, given.calls) for triple in triples]
    for line in benchmark(cases, given.out, given.limit):
        print(line, flush=True)


def missing_device(device: str) -> str:
    """Why the cases cannot run here, or ""."""
    import torch

    there = device != "cuda" or torch.cuda.is_available()
    return "" if there else "no CUDA device is visible here; --device cpu rehearses it with small pipelines"


def benchmark(cases: Sequence[Case], out: Path, limit: float) -> Iterator[str]:
    """Run the cases that the file lacks on this machine, each in a process of its own, and say what came of each."""
    entries, here = read(out), machine(cases[0].device)
    known = {case for case, _, there in entries if (there.gpu, there.versions) == (here.gpu, here.versions)}
    for number, case in enumerate(cases):
        if case in known:
            continue
        result = alone(case, limit)
        entries.append((case, result, here))
        write(out, entries)
        out.with_suffix(".md").write_text(sheet(entries), encoding="utf-8")
        done = (
            f"{case.model}, {case.cap:g} GiB, {case.way}: {result.outcome}{f' ({result.note})' if result.note else ''}"
        )
        yield f"{number + 1} of {len(cases)}, {done}"
    yield str(out.with_suffix(".md"))


def alone(case: Case, limit: float) -> Result:
    """The result of a case that a new process runs; what kills that is an outcome too."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.accuracy.benchmark.one", json.dumps(asdict(case))]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Result(outcome=FAILED, note=f"given up after {limit:g} s")
    marked = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if marked:
        return Result(**json.loads(marked[-1].removeprefix(MARK)))
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    killed = f"killed by signal {-done.returncode}; host memory may be short" if done.returncode < 0 else last
    return Result(outcome=FAILED, note=killed)


# ---- where it runs ---------------------------------------------------------------------------------------------------
def machine(device: str) -> Machine:
    """This machine, now."""
    versions = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    host = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GiB"
    gpu, driver = _gpu() if device == "cuda" else ("none: a rehearsal on the CPU", "")
    return Machine(
        datetime.now(UTC).date().isoformat(), gpu, driver, host, f"Python {platform.python_version()}, {versions}"
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _gpu() -> tuple[str, str]:
    """The card with its memory, and the driver with the CUDA version of torch."""
    import torch

    found = torch.cuda.get_device_properties(0)
    driver = "unknown driver"
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return f"{found.name}, {found.total_memory / 2**30:.2f} GiB", f"{driver}, CUDA {torch.version.cuda}"
