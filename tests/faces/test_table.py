"""The text report: what is in it, in which order, and how wide it is."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import le
from typing import Any

import pytest

from memplan.faces.cli import options
from memplan.faces.nearest import Nearest
from memplan.faces.report import bill, hardware, help, table
from memplan.faces.report.explain import explanation
from memplan.faces.report.front import distinct, fitting, others, why
from memplan.faces.report.layout import INDENT, NARROWEST, WIDTH, columns, paragraph
from memplan.facts import GIB, LOSSES, MIB
from memplan.facts.units import amount, gib, mib
from memplan.planner import PREFERENCES, Plan, draw
from memplan.planner.label import label
from memplan.probes.machine import probe_machine
from memplan.registry import parse_plan, strategies
from memplan.strategies import GroupOffload, LayerwiseCasting, ModelOffload, OnGpu, VaeTiling
from tests.faces import small

EVERY = tuple(OnGpu(name) for name in ("text_encoder", "transformer", "vae"))


def test_units_are_said() -> None:
    assert (gib(1.5 * GIB), mib(1.5 * GIB)) == ("1.50", "1,536")
    assert (amount(GIB), amount(GIB - MIB), amount(-2 * GIB)) == ("1.00 GiB", "1,023 MiB", "-2.00 GiB")


@pytest.fixture
def columns_are() -> Iterator[Callable[[int], None]]:
    """Sets the width of the report for one test."""
    before = WIDTH.get()
    yield lambda width: WIDTH.set(width) and None
    WIDTH.set(before)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("vram", [3, 8, 24])
def test_lines_fit_the_terminal(vram: float, everything: bool) -> None:
    text = table.recommendation(small.found(vram), everything=everything)
    assert max(map(len, text.splitlines())) <= WIDTH.get() == 100
    assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_every_report_fits_other_terminals(width: int, columns_are: Callable[[int], None]) -> None:
    columns_are(width)
    found = small.found()
    texts = (
        table.recommendation(found),
        bill.bill(found.front[0]),
        hardware.model(found.facts.model),
        explanation(found),
        help.listing(strategies()),
        *map(help.page, strategies()),
    )
    for text in texts:
        assert max(map(len, text.splitlines())) <= width
    assert "\n  memory    " in texts[0]
    assert "VRAM" in texts[1]
    assert max(map(len, texts[0].splitlines())) > width - 10, "and the room is used"


def test_a_narrow_terminal_does_without_columns(columns_are: Callable[[int], None]) -> None:
    rows = [("name", "first", "second", "note"), ("x", "1", "2", "as long as it needs to be " * 3)]
    whole = columns("lrrl", rows, spare=(1, 2))
    assert whole[0] == "  name  first  second  note"
    columns_are(NARROWEST + INDENT + len("name first second "))
    assert columns("lrrl", rows, spare=(1, 2))[0] == "  name first second note"
    columns_are(NARROWEST + INDENT + len("name  second  "))
    assert columns("lrrl", rows, spare=(1, 2))[0] == "  name  second  note"
    columns_are(NARROWEST + INDENT + len("name  "))
    narrow = columns("lrrl", rows, spare=(1, 2))
    assert narrow[0] == "  name  note"
    assert len(narrow) > len(whole)


def test_where_no_column_may_go_words_are_broken(columns_are: Callable[[int], None]) -> None:
    rows = [("phase", "component", "GiB"), ("text encoding", "text_encoder_2", "31.42"), ("decoding", "vae", "2.00")]
    columns_are(26)
    assert columns("llr", rows) == [
        "  phase    component   GiB",
        "  text     text_     31.42",
        "  encoding encoder_2",
        "  decoding vae        2.00",
    ]
    columns_are(10)
    assert all(columns("llr", rows)), "it says all of it, too wide"


def test_the_preferred_pick_comes_first() -> None:
    found = small.found()
    for preference in PREFERENCES:
        lines = table.recommendation(found, preference).splitlines()
        assert lines[lines.index("Picks") + 1].split()[0] == preference


def test_a_pick_shows_figures_margin_and_reason() -> None:
    found = small.found()
    plan = found.pick("memory")
    assert plan is not None
    text = " ".join(table.recommendation(found).split())
    assert f"VRAM {amount(plan.bill.peak.memory.required)} (margin {mib(plan.margin)} MiB)" in text
    assert plan.reason in text


def test_the_plan_that_does_least_is_shown_by_phase() -> None:
    text = table.recommendation(small.found())
    assert "Everything on the GPU needs 9.33 GiB and does not fit: 1,366 MiB too many" in text
    phases = [line.split() for line in text.splitlines() if "text_encoder  " in line or " vae  " in line]
    assert ["decoding", "vae", "6.75", "0.00", "2.00", "8.76", "8.76", "9.33", "0.33"] in [row[:-1] for row in phases]


def test_all_shows_what_was_dropped_and_why() -> None:
    found = small.found()
    assert "Dropped" not in table.recommendation(found)
    text = table.recommendation(found, everything=True)
    assert all(item.reason.split()[0] in text.partition("Dropped")[2] for item in found.dropped)
    assert f"The whole front: {len(others(found))} other plans" in text


def test_a_long_front_is_cut_to_plans_that_fit_and_differ() -> None:
    found = small.found()
    few = others(found, 5)
    assert len(few) == 5
    assert all(plan.fits for plan in few)
    assert others(found, 5) == few, "the same each time"
    assert "5 of " in table.recommendation(found).replace(f"{table.ROWS} of", "5 of")


def test_plans_are_sorted_by_the_time_that_is_shown() -> None:
    found = small.found()
    for plans in (others(found, 5), others(found)):
        seconds = [plan.bill.seconds for plan in plans]
        assert seconds == sorted(seconds)
        assert len(set(seconds)) > 1


def test_a_plan_much_like_one_of_fewer_techniques_is_left_out_and_counted() -> None:
    found = small.found()
    simple = next(plan for plan in others(found) if plan.fits)
    double = replace(simple, strategies=(*simple.strategies, VaeTiling()))
    both = replace(found, front=(*found.front, double))
    assert double in fitting(both)
    assert distinct(both) == distinct(found)
    assert double in others(both), "--all shows every plan"
    alike = len(fitting(both)) - len(distinct(both))
    assert alike == len(fitting(found)) - len(distinct(found)) + 1
    assert f"left out: {alike} that another is ahead of" in " ".join(table.recommendation(both).split())


def test_no_row_is_behind_another_in_all_that_is_shown() -> None:
    found = small.found()
    known = [*(plan for _, plan in found.picks), *distinct(found)]
    rows = [
        (p.bill.seconds, LOSSES.index(p.bill.loss.word), p.bill.peak.memory.required, p.bill.host.peak) for p in known
    ]
    computed = [plan.bill.host_flops for plan in known]
    for number in range(len(found.picks), len(known)):
        better = (all(map(le, other, rows[number])) for i, other in enumerate(rows) if i != number)
        less_work = (flops <= computed[number] for i, flops in enumerate(computed) if i != number)
        assert not any(ahead and less for ahead, less in zip(better, less_work, strict=True)), known[number]
    assert len(distinct(found)) < len(fitting(found))


def test_a_row_says_what_it_is_better_and_worse_at() -> None:
    facts = small.facts()
    resident, offloaded = draw(facts, EVERY), draw(facts, [ModelOffload(("text_encoder", "transformer", "vae"))])
    assert why(offloaded, resident, "speed") == "Less VRAM than speed, for more RAM and time."
    assert why(resident, offloaded, "memory") == "Less RAM and time than memory, for more VRAM."
    assert why(resident, resident, "speed") == "Much like speed."


def test_nothing_fits() -> None:
    found = small.found(vram=1)
    assert not found.picks
    text = said(found.nearest, Nearest(weights=True))
    assert f"{mib(-found.nearest.margin)} MiB more than the 1.00 GiB there are" in text
    peak = found.nearest.bill.peak
    assert f"of device memory in {peak.phase} ({peak.component}), " in text
    assert "The weights alone are too much in every plan" in text
    assert "There is no smaller call to try." in said(found.nearest, Nearest())
    smaller = {"height": 512, "width": 512}
    assert "tried do not fit either: --height 512 --width 512." in said(found.nearest, Nearest((smaller,)))
    text = said(found.nearest, Nearest((smaller,), smaller, draw(small.facts(), EVERY)))
    assert "nearest change of the call that fits is --height 512 --width 512, with everything on the GPU" in text
    assert "(tried: --height 512 --width 512)" in text


def said(plan: Plan, nearest: Nearest) -> str:
    return " ".join(table.nothing_fits(plan, nearest, options.typed).split())


def test_host_memory_can_be_what_is_missing() -> None:
    plan = draw(small.facts(ram=2), [ModelOffload(("text_encoder", "transformer", "vae"))])
    assert "needs 7.08 GiB of host memory, 5,201 MiB more than the 2.00 GiB" in said(plan, Nearest())
    assert "7.08 GiB at the highest, 5,201 MiB too many" in bill.bill(plan)
    both = draw(small.facts(vram=1, ram=2), plan.strategies)
    text = said(both, Nearest())
    assert "of device memory in denoising" in text
    assert "there are, and 7.08 GiB of host memory" in text


def test_the_bill_names_module_and_op_of_each_peak() -> None:
    text = bill.bill(draw(small.facts(), [ModelOffload(("text_encoder", "transformer", "vae"))]))
    assert "at transformer.layers.4, aten.mm" in text
    assert "Traffic    6.75 GiB to the device, 6.75 GiB back, nothing through casts, per call" in text
    assert "Precision  exact" in text
    assert "Assumed    one assumption" in text


def test_the_machine_says_which_figures_are_whose() -> None:
    said = [" ".join(" ".join(hardware.machine(probe_machine(ram=32, **named))).split()) for named in NAMED]
    assert "10.00 GiB of device memory, PCIe 4.0 x16 (from the catalogue; the name could also mean" in said[0]
    assert "mean NVIDIA GeForce RTX 3080 12 GB)" in said[0]
    assert "8.00 GiB of device memory by your figure, PCIe 4.0 x16 (from the catalogue)" in said[1]


NAMED: tuple[dict[str, Any], ...] = ({"gpu": "RTX 3080"}, {"gpu": "RTX 4070", "vram": 8})


def test_a_model_is_shown_by_component() -> None:
    rows = [line.split() for line in hardware.model(small.facts().model).splitlines()]
    assert ["transformer", "Transformer", "4.50", "2.25", "4", "x", "1,024", "512", "1,024", "bfloat16", "4.50"] in rows
    assert "text_encoder, tiling: TextEncoder has no decode() to tile" in hardware.model(small.facts().model)


# ---- labels and lines ------------------------------------------------------------------------------------------------
def test_labels_leave_out_what_stays_on_the_gpu() -> None:
    facts = small.facts()
    assert label(EVERY, facts) == label((), facts) == "everything on the GPU"
    assert label([GroupOffload("transformer"), *EVERY], facts) == "group_offload:transformer"


def test_labels_name_a_technique_once_for_all_components() -> None:
    plan = [LayerwiseCasting("a"), LayerwiseCasting("b"), GroupOffload("a", stream=True), GroupOffload("b")]
    assert label(plan, small.facts()) == "layerwise_casting:a,b + group_offload:a,stream=true + group_offload:b"


def test_labels_can_be_typed() -> None:
    found = small.found()
    assert len(found.front) > 10
    for plan in found.front:
        shown = [s for s in plan.strategies if not isinstance(s, OnGpu)]
        assert not shown or set(parse_plan(label(plan.strategies, found.facts), found.facts)) == set(shown)


@pytest.mark.parametrize("indent", [4, *(pytest.param(n, marks=pytest.mark.wide) for n in (30, 70))])
def test_a_wrapped_plan_can_be_pasted_and_no_name_is_broken(indent: int) -> None:
    found = small.found(1)
    names = {cls.name for cls in strategies()} | {c.name for c in found.facts.model.components}
    for plan in found.front:
        lines = paragraph(label(plan.strategies, found.facts), indent, indent + 2)
        pasted = "\n".join(lines)
        assert set(parse_plan(pasted, found.facts)) == set(parse_plan(str(plan), found.facts))
        for word in re.findall(r"\w+", pasted):
            assert word in names | set(re.findall(r"\w+", str(plan)))


def test_long_words_are_broken_behind_commas_alone() -> None:
    settings = [f"setting_{i}=true" for i in range(12)]
    word = f"technique:component,{','.join(settings)}"
    lines = paragraph(f"{word} + another of {GIB:,} bytes", 60)
    assert "".join(line.strip() for line in lines).startswith(word)
    assert sum(line.endswith(",") for line in lines) == 6
    assert any(f"{GIB:,}" in line for line in lines)
    assert paragraph("x" * 150) == ["x" * 150], "a name that is too long stays whole"


def test_what_of_the_picks_cannot_be_undone_is_said_once() -> None:
    found = small.found(5, ram=2.6)
    casting = [plan for _, plan in found.picks if "layerwise_casting" in str(plan)]
    text = " ".join(table.recommendation(found).split())
    assert len(casting) > 1
    assert text.count("layerwise_casting can't be undone; float8 storage loses bits") == 1
    assert "can't be undone" not in table.recommendation(small.found(40))


def test_columns_align_and_wrap() -> None:
    lines = columns("rl", [("n", "word"), ("10", "x " * 60)], [["    note"]])
    assert lines[0] == "   n  word"
    assert lines[1].startswith("  10  x x")
    assert lines[2].startswith("      x x")
    assert lines[-1] == "    note"


def test_paragraphs_hang() -> None:
    assert paragraph("word " * 30, 2, 4)[1].startswith("    word")
