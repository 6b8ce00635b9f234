"""The closed formulas beside the exact figures, and the help of strategies."""

from dataclasses import replace

import pytest

from memplan.faces.report import help
from memplan.faces.report.explain import Term, explanation, ram, vram
from memplan.faces.report.layout import WIDTH
from memplan.facts import GIB
from memplan.planner import draw
from memplan.registry import strategies
from memplan.run import OnHost
from memplan.strategies import Bnb4bit, GroupOffload, LayerwiseCasting, ModelOffload, VaeTiling
from memplan.strategy import Strategy
from tests.faces import small

NAMES = ("text_encoder", "transformer", "vae")
LEAVES = tuple(GroupOffload(name) for name in NAMES)


def terms(formula: list[Term]) -> list[tuple[str, float, float]]:
    return [(t.symbol, t.low / GIB, t.high / GIB) for t in formula]


@pytest.mark.parametrize(
    ("plan", "device", "host"),
    [
        ((), [("S_total", 6.75, 6.75)], []),
        ((ModelOffload(NAMES),), [("S_max", 4.5, 4.5)], [("S_total", 6.75, 6.75)]),
        ((LayerwiseCasting("transformer"),), [("S_total_lc", 4.5, 4.5)], []),
        (
            (LayerwiseCasting("transformer"), ModelOffload(NAMES)),
            [("S_max_lc", 2.25, 2.25)],
            [("S_total_lc", 4.5, 4.5)],
        ),
        (LEAVES, [("S_leaf(text_encoder)", 1, 1)], [("S_total", 6.75, 6.75)]),
        (
            (GroupOffload("transformer", "block_level", 1),),
            [("S(text_encoder, vae)", 2.25, 2.25), ("U(transformer)", 0.5, 0.5), ("S_block(transformer)", 1, 1)],
            [("S(transformer)", 4.5, 4.5)],
        ),
        (
            (GroupOffload("transformer", stream=True),),
            [("S(text_encoder, vae)", 2.25, 2.25), ("2·S_leaf(transformer)", 2, 2)],
            [("2.5…3·S(transformer)", 11.25, 13.5)],
        ),
        (
            (LayerwiseCasting("transformer"), GroupOffload("transformer", stream=True, low_cpu_mem=True)),
            [("S(text_encoder, vae)", 2.25, 2.25), ("2·S_leaf_lc(transformer)", 1, 1)],
            [("S_lc(transformer)", 2.25, 2.25)],
        ),
    ],
)
def test_formulas(plan: tuple[Strategy, ...], device: list[object], host: list[object]) -> None:
    run = draw(small.facts(), plan).run
    assert terms(vram(run)) == [*device, ("A", 2.0, 2.0)]
    assert terms(ram(run)) == host


def test_a_quantized_component_counts_as_it_is_stored() -> None:
    facts = small.facts()
    parts = [replace(c, weights=tuple(replace(w, columns=1024) for w in c.weights)) for c in facts.model.components]
    run = draw(replace(facts, model=replace(facts.model, components=tuple(parts))), (Bnb4bit("transformer"),)).run
    (symbol, low, high), _ = terms(vram(run))
    assert symbol == "S_total_q"
    assert low == high == pytest.approx(2.25 + 4.5 * 0.52 / 2, rel=0.01)


def test_activations_are_those_of_the_plan() -> None:
    tiled = draw(small.facts(), (VaeTiling(),)).run
    assert terms(vram(tiled))[-1] == ("A", 0.5, 0.5), "the transformer's: the VAE's in tiles are fewer"
    assert terms(vram(tiled.place("transformer", OnHost())))[-1] == ("A", 0.25, 0.25)


def test_each_plan_has_its_formula_the_exact_figure_and_the_place_of_the_peak() -> None:
    text = explanation(small.found())
    assert "VRAM  S_total + A = 6.75 + 2.00 = 8.75 GiB; exact 8.76 GiB allocated" in text
    assert "RAM   minimal; exact 337 MiB" in text
    assert "peak  decoding: vae.layers.0, aten.mm" in text
    assert max(map(len, text.splitlines())) <= WIDTH.get()


def test_help_lists_every_strategy_and_shows_its_settings() -> None:
    text = help.listing(strategies())
    assert all(cls.name in text for cls in strategies())
    page = help.page(GroupOffload)
    assert "level          str         default 'leaf_level'" in page
    assert "--with group_offload:component,level=…,blocks=…,stream=…,low_cpu_mem=…" in " ".join(page.split())
    assert "Can't be undone" in help.page(LayerwiseCasting)
