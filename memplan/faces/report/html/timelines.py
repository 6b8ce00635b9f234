"""The timelines of a recommendation as the page draws them: equal calls once, and no more points than can be seen."""

from collections.abc import Iterator, Sequence
from typing import Any

from memplan.faces.report.html.thin import shares, thinned
from memplan.planner import Plan
from memplan.simulator import Stretch, timeline
from memplan.simulator.course import Course

MOST, LEAST, ALL = 240, 40, 6000
"""Points of one call at most and at least, and about as many of all the different calls of a plan."""
SLICES = 48
"""Into how many slices of a call the lanes are cut."""

Row = tuple[float, float, dict[str, int]]
"""When it begins and ends, and bytes by what holds them."""


class Names:
    """Texts that come again and again, each once; a point has the number of its text."""

    def __init__(self) -> None:
        """No text is known."""
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[str]:
        """All of them, in the order of their numbers."""
        return list(self._numbers)


def drawn(plan: Plan, places: Names) -> dict[str, Any]:
    """The timeline of one plan. Bytes and seconds; `places` gets the modules and ops.

    `weights` names components, each with the number of its colour. A stretch is `repeat` runs of one of `courses`, from
    `begin` on, with `moving` seconds before them; `others` to `context` are bytes beside what the course holds, `host`
    those of host memory. A point of a course is [end in seconds, weights, copies, activations, place]; `device`, `cpu`
    and `link` are the shares of equal slices of it in which those are busy.
    """
    stretches, first = timeline(plan.run), dict[Course, Stretch]()
    for stretch in stretches:
        first.setdefault(stretch.course, stretch)
    numbers = {course: number for number, course in enumerate(first)}
    most = max(min(MOST, ALL // max(len(first), 1)), LEAST)
    return {
        "weights": _components(plan, stretches),
        "stretches": [_stretch(stretch, numbers[stretch.course]) for stretch in stretches],
        "courses": [_course(stretch, places, most) for stretch in first.values()],
    }


def rows(timeline: dict[str, Any]) -> Iterator[Row]:
    """Every moment of a timeline, as the page draws it."""
    for stretch in timeline["stretches"]:
        points = timeline["courses"][stretch["course"]]["points"]
        begin = stretch["begin"]
        if stretch["moving"]:
            yield begin, begin + stretch["moving"], _row(stretch, points[0][1], 0, 0)
        for run in range(stretch["repeat"]):
            start, last = begin + stretch["moving"] + run * stretch["seconds"], 0.0
            for end, weights, copies, activations, _ in points:
                yield start + last, start + end, _row(stretch, weights, copies, activations)
                last = end


def _row(stretch: dict[str, Any], weights: int, copies: int, activations: int) -> dict[str, int]:
    own = {stretch["component"]: weights} if weights else {}
    held = {f"weights of {name}": nbytes for name, nbytes in (*stretch["others"].items(), *own.items())}
    beside = {name: stretch[name] for name in ("context", "workspace", "unused")}
    return {**beside, **held, "copies": copies, "activations": activations + stretch["base"]}


def _components(plan: Plan, stretches: Sequence[Stretch]) -> list[tuple[str, int]]:
    """The components that have weights on the device at any moment, each with its number, the largest first.

    The number is its place among all of the model's, so that a component has one colour in all plans.
    """
    parts = sorted(plan.run.facts.model.components, key=lambda part: -part.size)
    there = {s.call.component for s in stretches if any(moment.weights for moment in s.course.moments)}
    there |= {name for s in stretches for name, nbytes in s.others.items() if nbytes}
    return [(part.name, number) for number, part in enumerate(parts) if part.name in there]


def _stretch(stretch: Stretch, course: int) -> dict[str, Any]:
    own = ("begin", "moving", "seconds", "repeat", "base", "workspace", "unused", "context", "host")
    place = {"phase": stretch.call.phase, "component": stretch.call.component, "course": course}
    return {**place, **{name: getattr(stretch, name) for name in own}, "others": dict(stretch.others)}


def _course(stretch: Stretch, places: Names, most: int) -> dict[str, Any]:
    call, course = stretch.call, stretch.course
    chosen = thinned(course.moments, most)
    paths = _paths(stretch)
    lanes = {"device": course.device, "cpu": course.host, "link": course.link}
    points: list[list[float]] = []
    for number, end in chosen:
        moment, segment = course.moments[number], call.segments[number]
        place = places.number(", ".join(filter(None, (paths[number], call.ops[segment.op]))))
        points.append([_short(end), moment.weights, moment.copies, moment.activations, place])
    points[-1][0] = stretch.seconds
    return {
        "points": points,
        **{name: shares(spans, stretch.seconds, SLICES) for name, spans in lanes.items()},
    }


def _paths(stretch: Stretch) -> list[str]:
    """For each segment the innermost open module, after the component's name."""
    call, found = stretch.call, list[str]()
    opened: list[int] = []
    for segment in call.segments:
        opened.extend(segment.enters)
        inside = call.modules[opened[-1]] if opened else ""
        found.append(".".join(filter(None, (call.component, inside))) or "the pipeline's own code")
        for module in segment.leaves:
            opened.remove(module)
    return found


def _short(seconds: float) -> float:
    """To a tenth of a microsecond."""
    return round(seconds, 7)
