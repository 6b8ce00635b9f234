"""The answer for other programs. Every size is in bytes; every key is always there.

`recommend` writes an object with

    schema       2; it rises when a key changes its meaning or goes
    machine      gpu (null without one): name, kind, total, free, unified, source; host: total, available, limit,
                 source, swap, pinnable (null: no limit of its own), system; reserve; vram and ram: what plans may use;
                 limits: vram, ram, seconds, loss that the user allows, each null without; learned: runs here, those
                 over their prediction, and margin, by how much at most, which is not in vram; pace: how many
                 times as long as predicted calls took, by which seconds are corrected
                 rates: per second or in seconds, by which time is reckoned, and the source of those
    workload     model, class, source, size, arguments (name -> value, long texts cut
                 short; what JSON cannot hold in words), assumptions (sentences)
    plans        the picks and the plans beside them that the table shows; the whole front with --all
    left_out     how many plans of the front are not in `plans`
    picks        quality, speed, memory, balanced -> a plan; empty when nothing fits
    preferred    which pick was asked for
    dropped      what, reason: variants and plans that were weighed and left out
    shortage     null, or when nothing fits: memory ("device", "host", "pinned", or what the
                 user limits: "seconds", "loss" in words), missing, phase, component,
                 module, op, and nearest_call: null, or the changed arguments of the nearest call that fits; tried:
                 those of each smaller call that was tried

and `price` one with schema, machine, workload and plan. A plan holds

    strategies   as `memplan price --with` takes them; what they do not name stays on the GPU
    label        the same in short and as one text, which `--with` takes too
    fits         whether device and host memory suffice, and what the user allows
    too_much     what does not suffice, in sentences; empty where it fits
    peak         phase, component, allocated, reserved, required: the highest phase
    phases       loading first; for each: the same, and weights, copies, states, activations, module, op, seconds; those
                 of loading are before the first call, with files that are in no cache
    ram          peak, steady, pinned
    traffic      to_device, to_host, cast: bytes per call
    host_flops   floating-point operations that the CPU does in components' place on the device, per call
    seconds      of one call of a warm pipeline; those of each phase are in phases
    new_prompt   seconds of one whose prompt is new: the same where prompts are not reused
    first_call   seconds of the first call, which compiles, and reads what nothing has read before
    loss         error (expected relative weight error), tiles (0 whole pictures, 1 tiles, 2 small ones), word
    margin       device memory left over; ram_margin: host memory left over; negative when missing
    reason       one sentence
    irreversible what of it can't be undone: sentences
    assumptions  what had to be assumed for it beside what holds for every plan: sentences

`probe` writes schema, machine and model (null unless one is named): name, class, source, size, largest, components
(name, class, library, dtype, size, cast_size, bytes_by_dtype, blocks, unmatched, leaf, lacks) and versions."""

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from memplan.applier import one_way
from memplan.faces.nearest import Nearest
from memplan.faces.report.front import others, why
from memplan.faces.report.table import ROWS
from memplan.facts import Component, Facts, Machine, Model, Rates
from memplan.planner import Plan, Recommendation
from memplan.planner.label import label, techniques
from memplan.registry import typed
from memplan.simulator import Peak

SCHEMA = 2


def recommendation(
    found: Recommendation,
    prefer: str = "balanced",
    *,
    everything: bool = False,
    nearest: Nearest | None = None,
) -> str:
    """The whole answer."""
    pick = found.pick(prefer)
    picked = list({p.strategies: p for _, p in found.picks}.values())
    beside = others(found, None if everything else ROWS)
    plans = [*picked, *beside]
    return text({
        **_workload(found.facts),
        "plans": [_plan(p, why(p, pick, prefer)) for p in plans],
        "left_out": len(picked) + len(others(found)) - len(plans),
        "picks": {name: _plan(p, p.reason) for name, p in found.picks},
        "preferred": prefer,
        "dropped": [{"what": d.what, "reason": d.reason} for d in found.dropped],
        "shortage": None if found.picks else _shortage(found.nearest, nearest or Nearest()),
    })  # fmt: skip


def bill(plan: Plan) -> str:
    """The bill of one plan."""
    return text({**_workload(plan.run.facts), "plan": _plan(plan, plan.reason)})


def probe(here: Machine, model: Model | None) -> str:
    """The machine, and the model where one is named."""
    return text({"schema": SCHEMA, "machine": machine(here), "model": _model(model) if model else None})


def text(answer: Mapping[str, Any]) -> str:
    """As it is printed."""
    return json.dumps(answer, indent=2, ensure_ascii=False)


# ---- parts -----------------------------------------------------------------------------------------------------------
def _workload(facts: Facts) -> dict[str, Any]:
    model, trace = facts.model, facts.trace
    workload = {
        "model": model.name,
        "class": model.class_name,
        "source": model.source,
        "size": model.size,
        "arguments": {name: value(shown) for name, shown in trace.arguments},
        "assumptions": list(facts.assumptions),
    }
    return {"schema": SCHEMA, "machine": machine(facts.machine), "workload": workload}


def value(shown: str) -> Any:
    """An argument as a value, or in the words that describe it."""
    try:
        read = ast.literal_eval(shown)
        json.dumps(read)
    except (ValueError, SyntaxError, TypeError):
        return shown
    return read


def machine(here: Machine) -> dict[str, Any]:
    """The machine, with its rates."""
    names = ("name", "kind", "total", "free", "unified", "source")
    gpu = {name: getattr(here.gpu, name) for name in names} if here.gpu else None
    same = ("total", "available", "limit", "source", "swap", "pinnable", "system")
    host = {name: getattr(here.host, name) for name in same}
    sizes = {"reserve": here.reserve, "vram": here.vram, "ram": here.ram, "limits": vars(here.limits)}
    sizes["learned"] = vars(here.learned)
    return {"gpu": gpu, "host": host, **sizes, "rates": _rates(here.rates)}


def _rates(rates: Rates) -> dict[str, Any]:
    """Every rate; those by family of ops and dtype as objects."""
    tables = {"compute": rates.compute, "on_host": rates.on_host}
    head = ("family", "dtype", "rate")
    return asdict(rates) | {name: [dict(zip(head, row, strict=True)) for row in tables[name]] for name in tables}


def _plan(plan: Plan, reason: str) -> dict[str, Any]:
    cost = plan.bill
    host, traffic = cost.host, cost.traffic
    return {
        "strategies": [typed(s, plan.run.facts) for s in techniques(plan.strategies)],
        "label": label(plan.strategies, plan.run.facts),
        "fits": plan.fits,
        "too_much": [str(short) for short in plan.shortages],
        "peak": _memory(cost.peak),
        "phases": [_peak(p) for p in cost.phases],
        "ram": {"peak": host.peak, "steady": host.steady, "pinned": host.pinned},
        "traffic": {"to_device": traffic.to_device, "to_host": traffic.to_host, "cast": traffic.cast},
        "host_flops": cost.host_flops,
        "seconds": cost.seconds,
        "new_prompt": cost.seconds + cost.encoding,
        "first_call": cost.first,
        "loss": {
            "error": cost.loss.error,
            "tiles": cost.loss.tiles,
            "cached": cost.loss.cached,
            "word": cost.loss.word,
        },
        "margin": plan.margin,
        "ram_margin": plan.host_margin,
        "reason": reason,
        "irreversible": list(one_way(plan.strategies)),
        "assumptions": list(plan.assumptions),
    }


def _memory(peak: Peak) -> dict[str, Any]:
    memory = peak.memory
    sizes = {"allocated": memory.allocated, "reserved": memory.reserved, "required": memory.required}
    return {"phase": peak.phase, "component": peak.component, **sizes}


def _peak(peak: Peak) -> dict[str, Any]:
    parts = {"weights": peak.weights, "copies": peak.copies, "states": peak.states, "activations": peak.activations}
    parts["ram"] = peak.host
    return {**_memory(peak), **parts, "module": peak.module, "op": peak.op, "seconds": peak.seconds}


def _shortage(plan: Plan, nearest: Nearest) -> dict[str, Any]:
    peak, short = plan.bill.peak, plan.shortages[0]
    missing = {"memory": short.of, "missing": short.missing}
    place = {"phase": peak.phase, "component": peak.component, "module": peak.module, "op": peak.op}
    return {**missing, **place, "nearest_call": nearest.change, "tried": list(nearest.tried)}


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "class": model.class_name,
        "source": model.source,
        "size": model.size,
        "largest": model.largest,
        "components": [_component(c) for c in model.components],
        "versions": dict(model.versions),
    }


def _component(c: Component) -> dict[str, Any]:
    same = ("name", "library", "dtype", "size", "cast_size", "bytes_by_dtype", "unmatched", "leaf")
    facts = {name: getattr(c, name) for name in same}
    return {**facts, "class": c.class_name, "blocks": list(c.blocks), "lacks": dict(c.lacks)}
