"""A matrix as a page: the grid of models by cards, and below it each case with its plan and what to type."""

import shlex
from collections.abc import Mapping, Sequence
from html import escape

from memplan.faces.matrix.case import FITS, Row
from memplan.faces.report.html.template import filled
from memplan.faces.report.matrix import MEANING, asked, cell, short
from memplan.facts import LOSSES
from memplan.facts.units import duration

DANGEROUS = frozenset('"$`!\\%')
"""Characters that some shell replaces inside of double quotes."""
STYLES = ("page.css", "matrix.css")
SCRIPTS = ("theme.js",)


def page(rows: Sequence[Row]) -> str:
    """The matrix as one file that needs no network."""
    numbers = {row: number for number, row in enumerate(rows)}
    models, cards = (len({getattr(row, name) for row in rows}) for name in ("model", "gpu"))
    title = f"{models} {'model' if models == 1 else 'models'} on {cards} {'card' if cards == 1 else 'cards'}"
    body = [_header(title), *(_section(ram, rows, numbers) for ram in dict.fromkeys(row.ram for row in rows))]
    body += ["<section><h2>Plans</h2>", *(_case(row, number) for row, number in numbers.items()), "</section>"]
    return filled(title, "\n".join(body), STYLES, SCRIPTS)


def _header(title: str) -> str:
    button = '<button id="theme" type="button">Theme: as the system</button>'
    return f'<header><div class="top"><h1>{title}</h1>{button}</div><p>{escape(MEANING)}</p>{_legend()}</header>'


def _legend() -> str:
    """The colours of losses."""
    shown = (f'<span><i style="background:{_colour(word)}"></i>{word}</span>' for word in LOSSES)
    return f'<div class="legend">{"".join(shown)}</div>'


def _colour(loss: str) -> str:
    return f"var(--{loss.replace(' ', '-')})"


# ---- the grid --------------------------------------------------------------------------------------------------------
def _section(ram: float, rows: Sequence[Row], numbers: Mapping[Row, int]) -> str:
    """The grid of one host memory."""
    own = [row for row in rows if row.ram == ram]
    models, cards = ([*dict.fromkeys(getattr(row, name) for row in own)] for name in ("model", "gpu"))
    found = {(row.model, row.gpu): row for row in own}
    head = "".join(f'<th scope="col">{escape(short(card))}</th>' for card in cards)
    lines = (
        f'<tr><th scope="row">{escape(model)}</th>'
        + "".join(_cell(found[model, card], numbers) if (model, card) in found else "<td></td>" for card in cards)
        + "</tr>"
        for model in models
    )
    grid = f'<table class="grid"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<section><h2>{ram:g} GiB of host memory</h2><div class="wide">{grid}</div></section>'


def _cell(row: Row, numbers: Mapping[Row, int]) -> str:
    first, *rest = cell(row)
    words = f'<a href="#case-{numbers[row]}"><b>{escape(first)}</b>{"<br>".join(map(escape, rest))}</a>'
    if row.verdict != FITS:
        return f'<td class="none">{words}</td>'
    return f'<td style="--loss:{_colour(row.loss)}">{words}</td>'


# ---- each case -------------------------------------------------------------------------------------------------------
def _case(row: Row, number: int) -> str:
    """One case: its figures, and the command that shows the bill of its plan; or why it has none."""
    head = f"<h3>{escape(f'{row.model} on {short(row.gpu)}, {row.ram:g} GiB')}</h3>"
    told = f'<p class="reason">{escape(_figures(row))}</p>'
    typed = f'<pre class="code">{escape(command(row))}</pre>' if row.plan else ""
    return f'<div class="case" id="case-{number}">{head}{told}{typed}</div>'


def _figures(row: Row) -> str:
    if row.seconds is None or row.vram_gib is None or row.ram_gib is None or row.traffic_gib is None:
        return f"{row.verdict}: {row.why} ({asked(row)})"
    memory = f"VRAM {row.vram_gib:,.2f} GiB, RAM {row.ram_gib:,.2f} GiB, traffic {row.traffic_gib:,.2f} GiB"
    return f"{duration(row.seconds)}, {memory}, {row.loss} ({asked(row)})"


def command(row: Row) -> str:
    """What shows the bill of its plan, as a shell reads it."""
    words = ["memplan", "price", row.model, "--gpu", row.gpu, "--ram", f"{row.ram:g}", "--with", row.plan]
    words += [word for name, value in row.arguments.items() for word in ("--call", f"{name}={value!r}")]
    named = (("--dtype", row.dtype), ("--variant", row.variant), ("--limit", row.limit))
    words += [word for name, value in named if value for word in (name, value)]
    words += ["--reserve", f"{row.reserve:g}"] if row.reserve else []
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word as every shell reads it: in double quotes where it needs any, unless a shell would look into those."""
    quoted = shlex.quote(word)
    return quoted if quoted == word or DANGEROUS & set(word) else f'"{word}"'
