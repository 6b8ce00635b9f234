"""What a notebook shows of the machine and of a model: small tables without scripts or styles."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from memplan.facts.units import amount, mib

if TYPE_CHECKING:
    from memplan.facts.machine import Machine
    from memplan.facts.model import Model


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts as HTML."""
    top = f"<tr>{''.join(f'<th>{escape(text)}</th>' for text in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead>{top}</thead><tbody>{body}</tbody></table>"


def machine(here: "Machine") -> str:
    """The card and the host, and what plans may use of them."""
    gpu, host = here.gpu, here.host
    card = (gpu.name, amount(gpu.total), amount(gpu.free)) if gpu else ("no GPU", "", "")
    rows = [
        ("GPU", *card, amount(here.vram)),
        ("host", host.system, amount(host.total), amount(host.available), amount(here.ram)),
    ]
    return table("Machine", ("", "name", "memory", "available", "plans may use"), rows)


def model(measured: "Model") -> str:
    """Its components, the largest first."""
    parts = sorted(measured.components, key=lambda part: -part.size)
    rows = [
        (part.name, part.class_name, amount(part.size), part.dtype, f"{len(part.blocks)} x {mib(max(part.blocks))} MiB")
        if part.blocks
        else (part.name, part.class_name, amount(part.size), part.dtype, "none")
        for part in parts
    ]
    caption = f"{measured.name}: {measured.class_name}, {amount(measured.size)} of weights"
    return table(caption, ("component", "class", "weights", "dtype", "blocks"), rows)
