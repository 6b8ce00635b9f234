import pytest

from memplan.probes.trace.doors import Visit
from memplan.probes.trace.ledger import Ledger, Recording, Stretch
from memplan.probes.trace.prompting import Prompting
from memplan.probes.trace.timeline import Timeline


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(unit=1)


@pytest.fixture
def timeline(ledger: Ledger) -> Timeline:
    return Timeline(ledger, lambda component, method: f"{component} {method}", Prompting())


def visit(component: str, peak: int = 10, base: int = 0, method: str = "forward") -> Visit:
    recording = Recording(base, [Stretch([], 0, peak)], ops={"op": 0})
    return Visit(component, method, recording, result=None, base=base)


def call(timeline: Timeline, visit: Visit, own: int = 0) -> None:
    """Own code that reaches `own` bytes, then the visit."""
    timeline.ledger.note("own", workspace=own)
    timeline.own_code()
    timeline.visit(visit)


def steps(timeline: Timeline) -> list[tuple[str, int]]:
    calls, found = timeline.finish()
    return [(calls[step.call].component, step.repeat) for step in found]


def test_own_code_stands_before_between_and_after(timeline: Timeline) -> None:
    call(timeline, visit("a"))
    call(timeline, visit("b"))
    assert steps(timeline) == [("", 1), ("a", 1), ("", 1), ("b", 1), ("", 1)]


def test_the_same_visit_again_counts_and_keeps_its_highest_base(timeline: Timeline) -> None:
    first = visit("net")
    for base in (5, 50, 7):
        first.base = base
        call(timeline, first)
    calls, found = timeline.finish()
    assert [(calls[s.call].component, s.repeat) for s in found] == [("", 1), ("net", 3), ("", 1)]
    assert next(c for c in calls if c.component == "net").base == 50


def test_of_own_code_between_repetitions_the_highest_stays(timeline: Timeline) -> None:
    first = visit("net")
    for own in (0, 30, 900, 40):
        call(timeline, first, own)
    calls, found = timeline.finish()
    assert [calls[s.call].peak_segment.peak for s in found if not calls[s.call].component] == [0, 900]


def test_two_recordings_in_turn_are_not_merged(timeline: Timeline) -> None:
    a, b = visit("net"), visit("net")
    for v in (a, b, a):
        call(timeline, v)
    assert [repeat for name, repeat in steps(timeline) if name] == [1, 1, 1]
    calls, _ = timeline.finish()
    assert len([c for c in calls if c.component]) == 2


def test_own_code_has_the_phase_of_what_was_before_it(timeline: Timeline) -> None:
    call(timeline, visit("net"))
    call(timeline, visit("vae", method="decode"))
    calls, found = timeline.finish()
    own = [calls[s.call].phase for s in found if not calls[s.call].component]
    assert own == ["preparing", "net forward", "post-processing"]
