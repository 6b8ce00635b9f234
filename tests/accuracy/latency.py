"""Published seconds beside predicted ones: each by itself, and plan against plan on the same card and model."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, groupby
from statistics import median

from memplan.catalogue.gpus import cards
from memplan.catalogue.rates import rates_of
from memplan.facts import MATMUL, Facts, Rates
from tests.accuracy.eras import era
from tests.accuracy.published import HERE, Predictor, Row, alone, calls, plan_of

TF32 = "tf32"
"""The precision in which float32 matrices were multiplied, where the benchmark asked for that."""


@dataclass(frozen=True)
class Latency:
    """Published `seconds` of the call of `row` (see published.csv) on `card`; `why` explains a large error."""

    row: Row
    seconds: float
    card: str
    precision: str
    why: str

    @property
    def rates(self) -> Rates:
        """What the card sustains, by its datasheet."""
        gpu = next(card.gpu() for card in cards() if card.name == self.card)
        rates = rates_of(gpu)
        if self.precision != TF32:
            return rates
        share = rates.flops(MATMUL, "bfloat16") / dict(gpu.rates)["bfloat16"]
        compute = {(family, dtype): rate for family, dtype, rate in rates.compute}
        compute[MATMUL, "float32"] = share * dict(gpu.rates)[TF32]
        return replace(rates, compute=tuple((*key, rate) for key, rate in compute.items()))


@dataclass(frozen=True)
class Timed:
    """A published latency and its prediction, in seconds."""

    latency: Latency
    predicted: float

    @property
    def error(self) -> float:
        """Relative error; 0.1 is ten percent too slow."""
        return self.predicted / self.latency.seconds - 1

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What two rows must have in common for their ratio to say something of plans alone."""
        row = self.latency.row
        return row.source, self.latency.card, row.model, row.scope


@cache
def latencies() -> tuple[Latency, ...]:
    """All rows of latencies.csv."""
    known = {row.id: row for row in calls()}
    with (HERE / "latencies.csv").open(newline="") as file:
        return tuple(
            Latency(known[line["id"]], float(line["seconds"]), line["card"], line["precision"], line["why"])
            for line in csv.DictReader(file)
        )


def predict(predictor: Predictor, latency: Latency) -> Timed:
    """The seconds of one call of the row's pipeline, or of one call of its denoiser alone."""
    row = latency.row
    with era(row.era):
        model, trace = predictor.measured(row)
        facts = Facts(replace(row.machine, rates=latency.rates), model, trace)
        if row.scope != "denoiser":
            return Timed(latency, plan_of(row, facts).bill.seconds)
        facts = alone(facts)
        times = sum(step.repeat for step in facts.trace.timeline)
        return Timed(latency, plan_of(row, facts).bill.seconds / times)


@dataclass(frozen=True)
class Pair:
    """Two plans on one card: how far the predicted ratio of their seconds is from the published one."""

    one: Timed
    other: Timed

    @property
    def error(self) -> float:
        """Relative error of the ratio, the same for either order: 0.1 is off by a factor of 1.1."""
        factor = (self.one.error + 1) / (self.other.error + 1)
        return max(factor, 1 / factor) - 1


def pairs(timed: Iterable[Timed]) -> Iterator[Pair]:
    """Every two rows with the same source, card, model and scope."""
    for _, group in groupby(sorted(timed, key=lambda t: t.place), key=lambda t: t.place):
        yield from (Pair(a, b) for a, b in combinations(group, 2))


def rank_correlation(timed: Sequence[Timed]) -> float:
    """Spearman's coefficient of predicted and published seconds, ties by their mean rank."""
    one, two = (_ranks(values) for values in ([t.predicted for t in timed], [t.latency.seconds for t in timed]))
    middle = (len(timed) + 1) / 2
    above = sum((a - middle) * (b - middle) for a, b in zip(one, two, strict=True))
    spread = [sum((r - middle) ** 2 for r in ranks) for ranks in (one, two)]
    return float(above / (spread[0] * spread[1]) ** 0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(v) + 1 + len(order) - order[::-1].index(v)) / 2 for v in values]


PAGE = HERE / "SECONDS.md"
HEAD = ("row", "card", "model and plan", "published s", "predicted s", "error")
DIGITS = 3
"""Decimals of a second that are printed and that errors are computed from."""
LARGE = 0.15
"""An error above this needs an explanation."""
INTRO = """\
# Predicted seconds beside published ones

Seconds of one call, as others measured them on GPUs, and what memplan predicts from the datasheet of the card and a
usual host. It is written by `python -m tests.accuracy --page`; the sources are in `published.csv`, the figures in
`latencies.csv`. Rows of cards that the source does not name are left out.

What cards sustain of their datasheets (`memplan/catalogue/sustained.json` and the seconds beside each kernel: seventeen
numbers) was fitted to the rows without any technique, those that tile or slice alone, those that are compiled and move
nothing, and S18-2, which moves next to nothing, except VAEs of SDXL. The rates of memory that is not pinned were read
off rows under model and sequential offload. None of these rows is an independent check; those of quantized weights that
are not compiled, of streams and of layerwise casting are. "(denoiser)" is one call of the denoiser, "(encode)" one of
the VAE. What a row's large error is put down to is our reading, not the source's.
"""


def all_timed(predictor: Predictor | None = None, ids: Sequence[str] = ()) -> Iterator[Timed]:
    """The predictions of these rows, or of all."""
    predictor = predictor or Predictor()
    return (predict(predictor, latency) for latency in latencies() if not ids or latency.row.id in ids)


def lines(ids: Sequence[str]) -> Iterator[str]:
    """The table for these rows, or for all, and what it says in short."""
    timed = []
    for one in all_timed(ids=ids):
        timed.append(one)
        yield "  ".join(cells(one))
    yield from ("", *summary(timed))


def page(timed: Sequence[Timed]) -> str:
    """The page of these rows, which follows from the figures it prints."""
    timed = [replace(t, predicted=round(t.predicted, DIGITS)) for t in timed]
    table = [HEAD, ("---",) * len(HEAD), *map(cells, timed)]
    whys = [f"- {t.latency.row.id}: {t.latency.why or 'not explained'}." for t in timed if abs(t.error) > LARGE]
    parts = (INTRO, "\n".join(f"- {line}" for line in summary(timed)), "", *(f"| {' | '.join(row)} |" for row in table))
    return "\n".join((*parts, "", *whys)) + "\n"


def cells(timed: Timed) -> tuple[str, ...]:
    """One line of the table."""
    latency, row = timed.latency, timed.latency.row
    what = " + ".join((row.model, *row.setup.split(), *row.plan.split()))
    what += f" ({row.scope})" if row.scope in ("denoiser", "encode") else ""
    return (row.id, latency.card, what, f"{latency.seconds:.3f}", f"{timed.predicted:.3f}", f"{timed.error:+.1%}")


def summary(timed: Sequence[Timed]) -> Iterator[str]:
    """Absolute errors, errors of ratios, and the order."""
    for name, chosen in (("without any technique", [t for t in timed if not t.latency.row.plan]), ("all", timed)):
        if chosen:
            errors = sorted(abs(t.error) for t in chosen)
            worst = max(chosen, key=lambda t: abs(t.error))
            figures = f"median {median(errors):.1%}, worst {worst.error:+.1%} ({worst.latency.row.id})"
            yield f"seconds, {name}: n {len(chosen)}, {figures}"
    ratios = [pair.error for pair in pairs(timed)]
    if ratios:
        yield f"ratios of two rows on one card and model: n {len(ratios)}, median {median(ratios):.1%}"
        yield f"order of all: Spearman's coefficient {rank_correlation(timed):.3f}"
