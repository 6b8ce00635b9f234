"""What was probed, as text: the machine, and the model component by component."""

from math import ceil

from memplan.faces.report.layout import columns, paragraph, titled
from memplan.facts import Component, Gpu, Learned, Limits, Machine, Model
from memplan.facts.units import MIB, UNITS, amount, duration, gib, mib

SPARE = (5, 6, 3, 4, 1)
"""Columns of components that a narrow terminal does without: unmatched, leaf, cast, blocks, then the class."""


def machine(here: Machine) -> list[str]:
    """The card, the host, what is kept free, and where the rates come from by which seconds are reckoned."""
    lines = [_gpu(here.gpu) if here.gpu else "no GPU is visible here", _host(here)]
    if here.reserve:
        lines.append(f"{amount(here.reserve)} of device memory kept free: plans may use {amount(here.vram)}")
    if here.learned.margin:
        lines.append(_learned(here.learned))
    if here.learned.pace != 1:
        took = f"calls here took {here.learned.pace:.2f} times as long as predicted"
        lines.append(f"{took}: seconds are corrected by that")
    lines.append(f"rates: {here.rates.source}")
    return [*titled("Machine", lines), *_limits(here.limits)]


def _learned(learned: Learned) -> str:
    """What earlier runs took beyond their predictions."""
    those = f"{learned.over} of {learned.runs} runs here took up to" if learned.runs > 1 else "a run here took"
    return f"{those} {mib(ceil(learned.margin / MIB) * MIB)} MiB more than predicted: kept free"


def _limits(limits: Limits) -> list[str]:
    """What the user allows."""
    allowed = [
        *([f"{amount(limits.vram)} of device memory"] if limits.vram is not None else []),
        *([f"{amount(limits.ram)} of host memory"] if limits.ram is not None else []),
        *([f"{duration(limits.seconds)} per call"] if limits.seconds is not None else []),
        *([f"a loss that is {limits.loss}"] if limits.loss is not None else []),
    ]
    return titled("Limit", [f"at most {', '.join(allowed)}"]) if allowed else []


def _gpu(gpu: Gpu) -> str:
    memory = f"{amount(gpu.total)} of device memory{' by your figure' if gpu.resized else ''}"
    if gpu.held_by_others:
        memory += f", {amount(gpu.free)} of it free"
    details = [memory, *([gpu.link_name] if gpu.link_name else []), *([f"driver {gpu.driver}"] if gpu.driver else [])]
    unified = ["shared with the host"] if gpu.unified else []
    lacks = [f"no {' or '.join(gpu.lacks)}"] if gpu.lacks else []
    other = f"; the name could also mean {' or '.join(gpu.namesakes)}" if gpu.namesakes else ""
    return f"{gpu.name}: {', '.join([*details, *unified, *lacks])} (from {_origin(gpu.source)}{other})"


def _origin(source: str) -> str:
    return {"user": "your figures", "catalogue": "the catalogue", "nvml": "NVML"}.get(source, source)


def _host(here: Machine) -> str:
    host = here.host
    facts = [f"host: {amount(host.available)} of {amount(host.total)} of memory available"]
    facts += ["in the virtual machine of WSL"] if host.system == "WSL" else []
    facts += [f"limited to {amount(host.limit)} by its control group"] if host.limit else []
    facts += [f"at most {amount(host.pinnable)} of it pinned"] if host.pinnable is not None else []
    facts += [f"{amount(host.swap)} of swap not counted"] if host.swap else []
    return ", ".join(facts)


def disk(here: Machine) -> list[str]:
    """The free disk for downloads, where it is known."""
    return titled("", [f"disk: {amount(here.host.disk_free)} free"]) if here.host.disk_free is not None else []


def model_line(model: Model) -> list[str]:
    """The model in one line."""
    sizes = sorted(model.components, key=lambda c: -c.size)
    parts = ", ".join(f"{c.name} {amount(c.size)}" for c in sizes)
    return titled("Model", [f"{model.name}, {model.class_name}, {amount(model.size)} of weights: {parts}"])


def model(measured: Model) -> str:
    """The model's components and what the library lacks for them."""
    head = ("component", "class", "weights", "cast", "blocks", "unmatched", "leaf", "dtypes")
    unit = ("", "", "GiB", "GiB", "MiB", "MiB", "MiB", "GiB")
    rows = [head, unit, *(_row(c) for c in measured.components)]
    lines = [
        *titled("Model", [f"{measured.name}, {measured.class_name}, {amount(measured.size)} of weights"]),
        "",
        *columns("llrrrrrl", rows, spare=SPARE),
        "",
        *paragraph(
            "weights: as stored (S_total of each; the largest is S_max). cast: after layerwise casting to 8 bits. "
            "blocks: number x S_block, the largest. unmatched: what block-level offload keeps on the device. "
            f"leaf: S_leaf, the largest layer. {UNITS}."
        ),
        *_lacks(measured),
        *(["", "Read with " + ", ".join(f"{n} {v}" for n, v in measured.versions)] if measured.versions else []),
    ]
    return "\n".join(lines)


def _row(c: Component) -> tuple[str, ...]:
    blocks = f"{len(c.blocks)} x {mib(max(c.blocks))}" if c.blocks else "none"
    dtypes = ", ".join(f"{name} {gib(size)}" for name, size in sorted(c.bytes_by_dtype.items(), key=lambda p: -p[1]))
    return (c.name, c.class_name, gib(c.size), gib(c.cast_size), blocks, mib(c.unmatched), mib(c.leaf), dtypes)


def _lacks(measured: Model) -> list[str]:
    said = [f"{c.name}, {technique}: {why}" for c in measured.components for technique, why in c.lacks]
    body = [line for text in said for line in paragraph(text, 2, 4)]
    return ["", "What the library does not offer", *body] if body else []
