"""The answer to an error: as text in two parts, and as JSON.

The JSON is an object with

    schema       2; it rises when a key changes its meaning or goes
    error        its class and text
    certainty    "memory", or "possibly memory" for an error that often hides a lack of it
    allocation   kind, index, asked, capacity, free, allocated, unallocated, limit, in_use in bytes, others (pid,
                 nbytes); null for what the error does not say; missing: by how much it was too much, null where
                 that is not known
    place        phase, step, steps, component, module, class_name, function
    pipeline     its class, "" where none was found; source: where it is loaded from
    call         arguments by name, long texts cut short; what JSON cannot hold in words
    held         weights: component -> bytes; others: bytes of tensors beside them, null where that is not known
    plan         null, or strategies, vram, ram, seconds, loss, code
    why_none     why there is no plan, in a sentence; "" where there is one
"""

from collections.abc import Iterator
from dataclasses import asdict

from memplan.faces.oom.answer import Answer
from memplan.faces.report.bill import figures
from memplan.faces.report.json import text as json_text
from memplan.faces.report.json import value
from memplan.faces.report.layout import paragraph, titled
from memplan.facts.units import MIB, amount, mib
from memplan.oom import MEMORY, Allocation
from memplan.oom.allocation import HOST, PINNED
from memplan.planner import Plan
from memplan.planner.label import label
from memplan.registry import typed

SCHEMA = 2
NAMES = {HOST: "Host memory", PINNED: "Host memory that can be pinned", "": "Memory"}


def diagnosis(answer: Answer) -> str:
    """What ran out where, what was asked for, and what was held."""
    failed = answer.failed
    out = "ran out" if failed.certainty == MEMORY else "possibly ran out"
    head = f"memplan: {_memory(failed)} {out}{_where(answer)}."
    call = ", ".join(f"{name}={value}" for name, value in answer.call)
    return "\n".join([
        *paragraph(head),
        *titled("Asked", list(_asked(failed))),
        *titled("Held", list(_held(answer))),
        *(titled("Call", [f"{answer.pipeline}: {call}"]) if call else []),
    ])  # fmt: skip


def advice(answer: Answer) -> str:
    """The plan that would have fitted and its code, or why there is none."""
    plan = answer.plan
    if plan is None:
        return "\n".join(titled("Plan", [f"none: {answer.why_none}"]))
    said = [label(plan.strategies, plan.run.facts), figures(plan), *_prediction(answer)]
    how = "the whole script" if answer.whole else "in place of pipe.to(), once the pipeline is loaded"
    return "\n".join(
        [*titled("Plan", [f"that would have fitted: {said[0]}", *said[1:]]), f"Code: {how}", "", answer.code]
    )


def as_json(answer: Answer) -> str:
    """The whole answer for other programs."""
    failed = asdict(answer.failed)
    certainty = failed.pop("certainty")
    return json_text({
        "schema": SCHEMA,
        "error": answer.error,
        "certainty": certainty,
        "allocation": {**failed, "missing": answer.failed.missing},
        "place": asdict(answer.place),
        "pipeline": answer.pipeline,
        "source": answer.source,
        "call": {name: value(shown) for name, shown in answer.call},
        "held": {"weights": dict(answer.held.weights), "others": answer.held.others},
        "plan": _plan(answer.plan, answer.code) if answer.plan else None,
        "why_none": answer.why_none,
    })  # fmt: skip


def _plan(plan: Plan, code: str) -> dict[str, object]:
    cost = plan.bill
    return {
        "strategies": [typed(s, plan.run.facts) for s in plan.strategies],
        "vram": cost.peak.memory.required,
        "ram": cost.host.peak,
        "seconds": cost.seconds,
        "loss": cost.loss.word,
        "code": code,
    }


# ---- sentences -------------------------------------------------------------------------------------------------------
def _memory(failed: Allocation) -> str:
    if failed.kind in NAMES:
        return NAMES[failed.kind]
    number = "" if failed.index is None else f":{failed.index}"
    return f"The memory of {failed.kind}{number}"


def _where(answer: Answer) -> str:
    place = answer.place
    step = f", step {place.step} of {place.steps or '?'}" if place.step else ""
    phase = f" in {place.phase}{step}" if place.phase else ""
    module = f"{place.path} ({place.class_name})" if place.path else place.class_name
    return phase + (f", at {module}" if module else f", in {place.function}()" if place.function else "")


def _asked(failed: Allocation) -> Iterator[str]:
    if failed.asked is None:
        yield "the error does not say how much"
        return
    short = f": {_short(failed.missing)} short" if failed.missing else ""
    free = (
        [f"{_exact(failed.free)} of {amount(failed.capacity)} were free"]
        if failed.free is not None and failed.capacity
        else []
    )
    cap = [f"this process may reserve {amount(failed.limit)}"] if failed.limit is not None else []
    yield f"{_exact(failed.asked)}{''.join(f'; {fact}' for fact in (*free, *cap))}{short}"
    if not failed.missing and failed.free is not None:
        yield "that much was free, though not in one piece: memory is fragmented, or another process took it meanwhile"


def _exact(nbytes: int) -> str:
    return amount(nbytes) if nbytes >= MIB else f"{nbytes:,} bytes"


def _short(nbytes: int) -> str:
    return f"{mib(nbytes)} MiB" if nbytes >= MIB else _exact(nbytes)


def _held(answer: Answer) -> Iterator[str]:
    failed, held = answer.failed, answer.held
    if held.weights:
        parts = ", ".join(f"{name} {amount(nbytes)}" for name, nbytes in held.weights)
        yield f"{amount(held.of_weights)} of weights: {parts}"
    elif answer.pipeline and failed.kind:
        yield f"no weights of {answer.pipeline}"
    if held.others is not None:
        yield f"{amount(held.others)} of activations and other tensors"
    if failed.unallocated is not None:
        yield f"{amount(failed.unallocated)} reserved by PyTorch and not in use"
    if failed.in_use is not None and failed.reserved is not None and failed.in_use > failed.reserved:
        yield f"{amount(failed.in_use - failed.reserved)} by this process beside PyTorch: the device context, libraries"
    for other in failed.others:
        yield f"{amount(other.nbytes)} by process {other.pid}"
    if failed.unnamed >= MIB:
        yield f"{amount(failed.unnamed)} by processes that the error does not name, or by the driver"


def _prediction(answer: Answer) -> Iterator[str]:
    if answer.predicted is not None:
        yield (
            f"memplan predicts {amount(answer.predicted)} for the run that failed, by which it would have fitted: this "
            "plan takes less than that by what was missing"
        )
