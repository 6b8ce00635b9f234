"""The published measurements this project answers for, and its prediction of each.

`published.csv` holds what the sources say and, in the columns from `model` on, what we are to predict; a setting the
source does not state is the default of its pipeline. `excluded.csv` names every other row of the collection and why it
is not here.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memplan.catalogue.gpu_names import find_card
from memplan.facts import GIB, Facts, Gpu, Host, Machine, Model, Trace
from memplan.planner import Plan, seated
from memplan.probes.pipeline import measure
from memplan.probes.trace import dry_run
from memplan.registry import parse
from memplan.simulator import Peak
from memplan.simulator.arrivals import Start, arrived
from memplan.simulator.device import blas_workspace
from memplan.simulator.loading import PHASE as LOADING
from tests.accuracy.eras import era, traced
from tests.accuracy.setups import encoder_of, picture, twin_of

HERE = Path(__file__).parent
METRICS = ("allocated", "reserved", "unspecified")
SCOPES = {
    "pipeline": "a call of the pipeline",
    "load": "the pipeline once it is loaded",
    "quantized": "the pipeline once it is loaded and its layers are quantized on the GPU",
    "left": "what a call of the pipeline leaves on the device: the weights, and the workspace of matrix products",
    "process": "the same, and calls of the pipeline, with the peak of all",
    "denoiser": "a call of the denoiser alone",
    "denoiser process": "the denoiser alone: once it is loaded, changed on the GPU and called, with the peak of all",
    "encode": "a call of the VAE's encode() alone",
}
LOADS = ("load", "quantized", "left")
FROM_THE_DEVICE = ("quantized", "process", "denoiser process")
"""Those where everything is on the device before a plan is applied to it."""
PERCENT = "% of the card's memory"
QUANTIZERS = (("bitsandbytes", "0.49"), ("torchao", "0.17"), ("optimum-quanto", "0.2.7"))
"""The packages a machine must have before anything is planned with them; their versions change no figure."""
PROMPT = "A cat holding a sign that says hello world"


@dataclass(frozen=True)
class Row:
    """One published figure and how to predict it.

    `call` are arguments of the pipeline, `setup` changes of it (see setups.py), `era` the older library code that was
    measured (see eras.py), `plan` strategies as `memplan price --with` takes them. `scope` is one of SCOPES. `why`
    explains an error above 4 %.
    """

    id: str
    source: str
    url: str
    technique: str
    figure: str
    unit: str
    value: str
    quality: str
    gpu: str
    model: str
    dtype: str
    call: str
    setup: str
    era: str
    plan: str
    capability: str
    scope: str
    metric: str
    why: str

    @property
    def measured(self) -> float:
        """The published figure in GiB; "~33" is read as 33, and a share as one of what the driver reports."""
        figure = float(self.value.lstrip("~"))
        return figure / 100 * find_card(self.gpu).total / GIB if self.unit == PERCENT else figure

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the pipeline call."""
        pairs = (word.split("=") for word in self.call.split())
        return {"prompt": PROMPT} | {name: int(v) if v.isdigit() else v for name, v in pairs}

    @property
    def machine(self) -> Machine:
        """The machine it was measured on; sizes do not matter here, the compute capability does."""
        major, minor = self.capability.split(".")
        gpu = Gpu(self.gpu, total=80 * GIB, free=80 * GIB, capability=(int(major), int(minor)))
        return Machine(gpu, Host(total=256 * GIB, available=256 * GIB), packages=QUANTIZERS)


@dataclass(frozen=True)
class Result:
    """A row with its prediction. `today` is the prediction with the installed library, where an era was emulated."""

    row: Row
    predicted: float
    today: float

    @cached_property
    def error(self) -> float:
        """Relative error of the prediction; 0.01 is one percent too high."""
        return self.predicted / self.row.measured - 1


def calls() -> list[Row]:
    """All rows of published.csv; those without a value were published with their seconds alone."""
    with (HERE / "published.csv").open(newline="") as file:
        return [Row(**{f.name: line[f.name] for f in fields(Row)}) for line in csv.DictReader(file)]


def rows() -> list[Row]:
    """Those whose source gives memory."""
    return [row for row in calls() if row.value]


class Predictor:
    """Predicts rows; the dry run of a call is shared by all rows that have it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[Model, Trace]] = {}

    def results(self, chosen: list[Row] | None = None) -> Iterator[Result]:
        """One result after the other."""
        for row in rows() if chosen is None else chosen:
            predicted = self.predict(row)
            yield Result(row, predicted, self.predict(replace(row, era="")) if row.era else predicted)

    def predict(self, row: Row) -> float:
        """The figure of `row`, in GiB."""
        with era(row.era):
            return figure(row, plan_of(row, self.facts(row))) / GIB

    def facts(self, row: Row) -> Facts:
        """What was measured for `row`, with its weights where its scope has them."""
        model, trace = self.measured(row)
        there = row.scope in FROM_THE_DEVICE
        model = replace(model, components=tuple(replace(part, on_device=there) for part in model.components))
        facts = Facts(row.machine, model, trace)
        return alone(facts) if row.scope.startswith("denoiser") else facts

    def measured(self, row: Row) -> tuple[Model, Trace]:
        """Model and dry run of `row`; of a load there is nothing to run."""
        called = (row.call, traced(row.era)) if row.scope not in LOADS else ()
        part = "vae" if row.scope == "encode" else ""
        key = (row.model, row.dtype, row.setup, *called, part)
        if key not in self._known:
            twin, more = twin_of(row.model, row.dtype, row.setup)
            arguments = {**twin.call, **row.arguments, **more}
            if part:
                twin, arguments = encoder_of(twin), picture(row.arguments, twin.pipe.vae.dtype)
            with era(traced(row.era)):
                trace = dry_run(twin, arguments) if called else Trace("cuda", (), ())
            self._known[key] = measure(twin.pipe, row.model), trace
        return fresh(self._known[key][0]), self._known[key][1]


def fresh(model: Model) -> Model:
    """The same model anew: what is known of its components' sizes is not, for another era has others."""
    return replace(model, components=tuple(replace(component) for component in model.components))


def plan_of(row: Row, facts: Facts) -> Plan:
    """The plan that the row was measured with."""
    return seated(facts, [parse(text, facts) for text in row.plan.split()])


def alone(facts: Facts) -> Facts:
    """The same facts of a process that holds and calls nothing but the denoiser."""
    calls = facts.trace.calls
    denoising = [s for s in facts.trace.timeline if calls[s.call].phase == "denoising" and calls[s.call].component]
    names: Mapping[str, None] = dict.fromkeys(calls[step.call].component for step in denoising)
    model = replace(facts.model, components=tuple(c for c in facts.model.components if c.name in names))
    return Facts(facts.machine, model, replace(facts.trace, timeline=tuple(denoising)))


def figure(row: Row, plan: Plan) -> int:
    """What `row` gives of a plan, in bytes."""
    metric = "reserved" if row.metric == "reserved" else "allocated"
    if row.scope in ("load", "left"):
        device = arrived(plan.run, Start.LOADER)
        if row.scope == "left":
            return device.allocated + blas_workspace(row.machine.gpu)
        return device.pool.reserved if metric == "reserved" else device.allocated
    if row.scope == "quantized":
        return of_loading(plan).weights
    phases = plan.bill.phases if row.scope in FROM_THE_DEVICE else plan.bill.peaks
    return max(getattr(peak.memory, metric) for peak in phases)


def of_loading(plan: Plan) -> Peak:
    """The phase before the call."""
    return next(peak for peak in plan.bill.phases if peak.phase == LOADING)
