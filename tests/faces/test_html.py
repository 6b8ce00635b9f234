"""The report as a page: what is in it, that it needs nothing else, and that its figures are those of the JSON."""

import html
import json
import re
from dataclasses import replace
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from memplan.errors import BadInput
from memplan.faces import api
from memplan.faces.nearest import Nearest
from memplan.faces.report import code
from memplan.faces.report import json as report
from memplan.faces.report.bill import figures
from memplan.faces.report.html.page import SCRIPTS, front, page, page_of
from memplan.faces.report.html.thin import shares, thinned
from memplan.facts import Training
from memplan.facts.units import MIB, amount
from memplan.planner import Plan, Recommendation, draw
from memplan.planner.label import label
from memplan.registry import parse_plan
from memplan.simulator.course import Moment
from tests.faces import browser, small

HERE = files("memplan.faces.report.html")
CALL = {"prompt": api.PROMPT}


@cache
def found_for(vram: float = 8) -> Recommendation:
    return small.found(vram)


@cache
def text(vram: float = 8) -> str:
    return page(found_for(vram), CALL)


def data(name: str, of: str) -> Any:
    """The JSON of that name in a page."""
    return json.loads(re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', of, re.DOTALL)[0])


def prose(of: str) -> str:
    """The page without its data."""
    return re.sub(r'<script type="application/json".*?</script>', "", of, flags=re.DOTALL)


# ---- the text --------------------------------------------------------------------------------------------------------
class Outline(HTMLParser):
    """Headings, and what has a name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.heading = tag in ("h1", "h2", "summary")
        named = dict(attrs).get("id")
        self.found += [f"{tag}#{named}"] if named else []

    def handle_data(self, data: str) -> None:
        self.found += [data] if self.heading else []
        self.heading = False


def outline(of: str) -> list[str]:
    parser = Outline()
    parser.feed(of)
    return parser.found


def test_the_page_has_its_sections_the_preferred_pick_first() -> None:
    drawn = [f"div#{name}-{{0}}" for name in ("phases", "memory", "lanes", "ram")]
    pick = ["section#pick-{0}", "{1}", *drawn, "p#moment-{0}", "div#bands-{0}", "Phases", "Code"]
    found = found_for()
    names = [" and ".join(plan["names"]).capitalize() for plan in data("timelines", text())["plans"]]
    assert names[0].startswith("Balanced")
    assert sorted(" and ".join(names).lower().split(" and ")) == sorted(name for name, _ in found.picks)
    assert outline(text()) == [
        "small on a card",
        "button#theme",
        "Plans",
        "div#losses",
        "div#scatter",
        "p#point",
        *(line.format(number, name) for number, name in enumerate(names) for line in pick),
        *(f"script#{name}" for name in ("answer", "timelines", "front")),
    ]


def test_each_pick_has_its_figures_and_its_code() -> None:
    for _, plan in found_for().picks:
        assert f"<dd>{amount(plan.bill.peak.memory.required)}</dd>" in text()
        script = code.script(plan, "/models/small", CALL)
        assert script.replace('"', "&quot;").replace("'", "&#x27;") in text()


def test_texts_are_texts() -> None:
    facts = small.facts()
    trace = replace(facts.trace, arguments=(("prompt", "'</script><b>&'"),))
    found = found_for()
    plans = tuple(
        (name, replace(plan, run=replace(plan.run, facts=replace(facts, trace=trace)))) for name, plan in found.picks
    )
    made = page(replace(found, facts=replace(facts, trace=trace), picks=plans), CALL)
    assert data("answer", made)["workload"]["arguments"]["prompt"] == "</script><b>&"
    assert "</script><b>" not in made


def test_where_nothing_fits_the_nearest_plan_is_drawn() -> None:
    made = text(vram=1)
    assert "Nothing fits; the plan that misses the least is drawn below." in made
    assert [plan["names"] for plan in data("timelines", made)["plans"]] == [["nearest"]]
    nearest = found_for(1).nearest
    said = f"The nearest plan, {label(nearest.strategies, nearest.run.facts)}, needs {nearest.shortages[0]}"
    assert html.escape(said) in made
    assert f'<p class="needs">Too much: {html.escape(str(nearest.shortages[0]))}.</p>' in made
    assert "smaller call" not in prose(made), "none was looked for"
    assert "Too much" not in prose(text())


def test_where_a_smaller_call_fits_the_page_says_which() -> None:
    fits = found_for().picks[0][1]
    tried = ({"height": 512, "width": 512}, {"height": 768, "width": 768})
    made = html.unescape(page(found_for(1), CALL, nearest=Nearest(tried, tried[0], fits)))
    assert f"that fits is height=512, width=512, with {label(fits.strategies, fits.run.facts)} (tried: " in made
    assert f"<p>{figures(fits)}.</p>" in made
    assert "do not fit either: height=512, width=512, height=768" in page(found_for(1), CALL, nearest=Nearest(tried))


def test_reports_in_python_write_the_same_page(tmp_path: Path) -> None:
    found, file = found_for(), tmp_path / "report.html"
    assert found.to_html(file, "memory", CALL) == file.read_text("utf-8") == page(found, CALL, "memory")
    _, plan = found.picks[0]
    assert plan.to_html(call=CALL) == page_of(plan, CALL)
    with pytest.raises(BadInput, match=r"report\.html/x cannot be written: Not a directory"):
        plan.to_html(file / "x")
    with pytest.raises(BadInput, match="unknown preference 'best'"):
        found.to_html(prefer="best")
    facts = replace(plan.run.facts, training=Training("lora"))
    with pytest.raises(BadInput, match="a page is for calls of a pipeline: a training step has no timeline"):
        replace(plan, run=replace(plan.run, facts=facts)).to_html()


def test_a_plan_that_is_named_has_a_page_of_its_own() -> None:
    plan = draw(small.facts(), parse_plan("model_offload", small.facts()))
    made = page_of(plan, CALL)
    assert data("answer", made) == json.loads(report.bill(plan))
    assert outline(made)[2:4] == ["section#pick-0", "The plan"]
    assert data("front", made) == []
    check_plan(plan, data("timelines", made)["plans"][0])


# ---- nothing else is needed ------------------------------------------------------------------------------------------
def test_the_page_needs_no_network() -> None:
    shown = prose(text())
    assert not re.findall(r"<(?:link|img|iframe|object|embed|base)\b|\ssrc=|\shref=|@import|url\(", shown)
    assert re.findall(r"https?://\S+", shown) == ["https://github.com/leeoniya/uPlot"]  # in uPlot's first comment
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|WebSocket|import\(", shown)


def test_what_is_vendored_is_unchanged() -> None:
    noted = json.loads(HERE.joinpath("vendored.json").read_text(encoding="utf-8"))
    assert {name: sha256(HERE.joinpath(name).read_bytes()).hexdigest() for name in noted["sha256"]} == noted["sha256"]
    assert f"v{noted['version']})" in HERE.joinpath("uPlot.iife.min.js").read_text(encoding="utf-8")[:80]
    assert "MIT" in HERE.joinpath("uPlot.LICENSE.txt").read_text(encoding="utf-8")


def test_the_page_is_small() -> None:
    assert len(text().encode()) < 0.5 * MIB


@pytest.mark.wide
def test_the_page_of_a_video_model_is_below_2_mib() -> None:
    found = api.recommend("wan2.1-t2v-14b", target=api.Target(gpu="RTX 4090", ram=64))
    made = page(found, CALL)
    check_figures(found, made)
    assert len(made.encode()) < 2 * MIB


# ---- figures ---------------------------------------------------------------------------------------------------------
def test_it_holds_what_the_json_says() -> None:
    assert data("answer", text()) == json.loads(report.recommendation(found_for()))
    assert len(data("front", text())) == len(front(found_for())) >= len(found_for().front)


@pytest.mark.parametrize("vram", [1, 2.5, 8])
def test_what_is_drawn_is_what_is_said(vram: float) -> None:
    check_figures(found_for(vram), text(vram))


def check_figures(found: Recommendation, made: str) -> None:
    """The highest point of each phase is that of the JSON, and the last second too."""
    picks = dict(found.picks) or {"nearest": found.nearest}
    for plan in data("timelines", made)["plans"]:
        check_plan(picks[plan["names"][0]], plan)


def check_plan(plan: Plan, shown: dict[str, Any]) -> None:
    last = shown["stretches"][-1]
    assert last["begin"] + last["moving"] + last["seconds"] * last["repeat"] == pytest.approx(plan.bill.seconds)
    for peak in plan.bill.peaks:
        own = [s for s in shown["stretches"] if (s["phase"], s["component"]) == (peak.phase, peak.component)]
        assert max(highest(stretch, shown["courses"]) for stretch in own) == peak.memory.required


def highest(stretch: dict[str, Any], courses: list[dict[str, Any]]) -> int:
    beside = sum(stretch["others"].values()) + sum(stretch[n] for n in ("base", "workspace", "unused", "context"))
    return beside + max(sum(point[1:4]) for point in courses[stretch["course"]]["points"])


@pytest.mark.parametrize("number", [1, 7, 400, 5000])
def test_thinning_loses_no_peak(number: int) -> None:
    moments = [Moment((n + 1) / 100, n % 3, n * 7919 % 977, n * 104729 % 1009) for n in range(number)]
    kept = thinned(moments, 100)
    assert len(kept) <= min(number, 101)
    assert max(moments[n].held for n, _ in kept) == max(moment.held for moment in moments)
    assert min(moments[n].held for n, _ in kept) == min(moment.held for moment in moments)
    assert [end for _, end in kept] == sorted(end for _, end in kept)
    assert kept[-1][1] == moments[-1].end


def test_equal_moments_are_one() -> None:
    assert thinned([Moment(1.0, 5, 0, 0), Moment(2.0, 5, 0, 0), Moment(3.0, 6, 0, 0)], 100) == [(0, 2.0), (2, 3.0)]


def test_shares_of_slices_add_up() -> None:
    assert shares([(0.0, 1.5), (3.0, 4.0)], 4.0, 4) == [1.0, 0.5, 0.0, 1.0]
    assert shares([], 0.0, 2) == [0.0, 0.0]


# ---- in a browser ----------------------------------------------------------------------------------------------------
ZOOM = """
[...document.querySelectorAll("#phases-0 button")].find((b) => b.textContent.startsWith("denoising: one")).click();
setTimeout(() => {
  const pick = read("front").find((point) => point.picks.includes("balanced"));
  charts[0].setCursor({ left: charts[0].valToPos(pick.seconds, "x"), top: charts[0].valToPos(pick.required, "y") });
  charts[1].setCursor({ left: 200, top: 90 });
  document.body.dataset.x = charts.slice(1, 4).map((u) => u.scales.x.min).join();
}, 300);
"""
DARK = """for (const _ of [1, 2]) document.getElementById("theme").click();"""


def written(folder: Path, made: str, script: str = "") -> Path:
    """A page in a file, with a script that does what a person would."""
    file = folder / "report.html"
    file.write_text(made.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return file


@browser.needed
@pytest.mark.slow
def test_a_browser_draws_the_figures_of_the_json(tmp_path: Path) -> None:
    seen = browser.opened(written(tmp_path, text()))
    assert seen.console == []
    assert 'data-ready="true"' in seen.dom
    answer, plans = data("answer", seen.dom), data("timelines", seen.dom)["plans"]
    assert seen.dom.count("<canvas") == 1 + 3 * len(plans)
    for number, plan in enumerate(plans):
        said = answer["picks"][plan["names"][0]]
        shown = attributes(seen.dom, f"memory-{number}")
        assert float(shown["seconds"]) == pytest.approx(said["seconds"])
        phases = {f"{p['phase']}/{p['component']}": p["required"] for p in said["phases"] if p["phase"] != "loading"}
        assert json.loads(shown["phases"]) == phases
        assert int(shown["peak"]) == max(phases.values())


@browser.needed
@pytest.mark.slow
def test_a_browser_draws_one_plan(tmp_path: Path) -> None:
    plan = draw(small.facts(), parse_plan("model_offload", small.facts()))
    seen = browser.opened(written(tmp_path, page_of(plan, CALL)))
    assert seen.console == []
    assert 'data-ready="true"' in seen.dom
    assert int(attributes(seen.dom, "memory-0")["peak"]) == data("answer", seen.dom)["plan"]["peak"]["required"]


@browser.needed
@pytest.mark.slow
def test_a_browser_zooms_and_tells_what_is_pointed_at(tmp_path: Path) -> None:
    seen = browser.opened(written(tmp_path, text(), ZOOM))
    assert seen.console == []
    told = re.findall(r'id="moment-0">([^<]*)<', seen.dom)[0]
    assert re.search(r"denoising: [\d.]+ [GM]iB of device memory, .* of RAM; .*call \d+ of 20; GPU computes", told)
    balanced = found_for().pick("balanced")
    pointed = html.unescape(re.findall(r'id="point">([^<]*)<', seen.dom)[0])
    assert balanced
    assert pointed.endswith(f"): {balanced}")
    assert amount(balanced.bill.peak.memory.required) in pointed
    steps = next(s for s in data("timelines", seen.dom)["plans"][0]["stretches"] if s["repeat"] == 20)
    start = steps["begin"] + steps["moving"] + 10 * steps["seconds"]
    shown = re.findall(r'<body data-x="([^"]*)"', seen.dom)[0].split(",")
    assert [float(least) for least in shown] == [pytest.approx(start)] * 3


TICKS = """
const shown = (min, max) => {
  const u = { width: 800, scales: { x: { min, max } } };
  return clock(u, timeSplits(u, 0, min, max)).join();
};
document.body.dataset.x = [shown(0, 61.7), shown(0, 7464), shown(100, 100.003), shown(5, 5)].join(";");
"""


@browser.needed
@pytest.mark.slow
def test_times_are_in_minutes_where_they_are_long(tmp_path: Path) -> None:
    seen = browser.opened(written(tmp_path, text(), TICKS))
    shown = re.findall(r'<body data-x="([^"]*)"', seen.dom)[0].split(";")
    assert shown[0] == "0 s,10 s,20 s,30 s,40 s,50 s,60 s"
    assert shown[1] == ",".join(f"{at} min" for at in range(0, 121, 20))
    assert shown[2:] == ["100 s,100.0005 s,100.001 s,100.0015 s,100.002 s,100.0025 s,100.003 s", "5 s"]


@browser.needed
@pytest.mark.slow
def test_a_browser_complains_of_what_is_broken(tmp_path: Path) -> None:
    seen = browser.opened(written(tmp_path, text(), "charts.nothing.fails()"))
    assert any("TypeError" in line for line in seen.console)


@browser.needed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "ground", "weights"),
    [("", (255, 255, 255), (0, 114, 178)), (DARK, (20, 23, 27), (63, 155, 216))],
    ids=["light", "dark"],
)
def test_it_is_light_and_dark(tmp_path: Path, script: str, ground: tuple[int, ...], weights: tuple[int, ...]) -> None:
    with Image.open(browser.looks(written(tmp_path, text(), script), (1000, 1600))) as shot:
        colours = {colour: number for number, colour in shot.convert("RGB").getcolors(1 << 24) or []}
    assert colours[ground] > 0.5 * 1000 * 1600
    assert colours[weights] > 5000


def attributes(dom: str, name: str) -> dict[str, str]:
    """The data-… of the element of that id."""
    tag = re.findall(rf"<div[^>]*id=\"{name}\"[^>]*>", dom)[0]
    return {key: value.replace("&quot;", '"') for key, value in re.findall(r'data-(\w+)="([^"]*)"', tag)}


def test_every_script_is_in_the_page() -> None:
    names = {file.name for file in HERE.iterdir() if file.name.endswith(".js")}
    assert set(SCRIPTS) == names
