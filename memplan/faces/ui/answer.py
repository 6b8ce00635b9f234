"""What the web page shows for what was chosen: the report as it is in a file, and the code of the preferred plan."""

from dataclasses import dataclass
from html import escape
from typing import Any

from memplan.errors import MemplanError, NoGpu
from memplan.faces import api
from memplan.faces.assembled import origin
from memplan.faces.nearest import Nearest, nearest_call
from memplan.faces.report import code
from memplan.faces.report.bill import figures
from memplan.faces.report.html.page import page

STYLE = "width: 100%; height: 85vh; border: 0"


@dataclass(frozen=True)
class Answer:
    """A sentence, the report as HTML for a part of a page, and a script; the last two are "" for what is refused."""

    said: str
    report: str = ""
    code: str = ""


@dataclass(frozen=True)
class Question:
    """What is chosen: `ram` in GiB, sides in pixels; None for what the pipeline or this machine decides.

    Without a card, `gpu` is "": then it is the one that is here.
    """

    model: str
    gpu: str
    ram: float | None = None
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    prefer: str = "balanced"


def answer(asked: Question, progress: api.Progress | None = None) -> Answer:
    """What is recommended, or the sentence that refuses it."""
    sizes = {"height": asked.height, "width": asked.width, "num_frames": asked.frames}
    call: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    target = api.Target(asked.gpu or None, ram=asked.ram)
    try:
        found = api.recommend(asked.model, target=target, progress=progress, **call)
        pick, nearest = found.pick(asked.prefer), Nearest()
        if pick is None:
            nearest = nearest_call(asked.model, found, target=target, progress=progress, **call)
    except NoGpu as error:
        return Answer(f"{error.why} Choose a card.")
    except MemplanError as error:
        return Answer(str(error))
    shown = {"prompt": api.PROMPT, **call}
    report = framed(page(found, shown, asked.prefer, nearest))
    if pick is None:
        missing = ", and ".join(map(str, found.nearest.shortages))
        return Answer(f"Nothing fits. The nearest plan needs {missing}.", report)
    script = code.script(pick, origin(found.facts.model.source), shown)
    return Answer(f"{asked.prefer.capitalize()}: {pick}. {figures(pick)}.", report, script)


def framed(text: str) -> str:
    """A page inside another one: its scripts run, and reach nothing outside of it."""
    return f'<iframe title="report" sandbox="allow-scripts" style="{STYLE}" srcdoc="{escape(text)}"></iframe>'
