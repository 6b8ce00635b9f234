"""What every strategy of the catalogue keeps to, on small real pipelines: a new file is tested from its first day."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from functools import cache
from inspect import isfunction, ismethod, signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FasterCacheConfig

import memplan.strategies
from memplan.facts import Facts
from memplan.probes.pipeline.rounding import measured
from memplan.registry import parse
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategies import STRATEGIES, PromptReuse
from memplan.strategy import Strategy
from tests import pipelines
from tests.measured_facts import facts_of
from tests.pipelines import inputs
from tests.pipelines.pictures import image_encoder
from tests.some import some

UNSEEN = ("on_gpu", "on_cpu", "set_aside")
"""Techniques of which nothing shows on the CPU."""
TIMESTEPS = range(0, 1001, 25)
"""At which callbacks are asked."""
FAMILIES = ("flux", "sdxl", "wan", "cogvideox")
CATALOGUE = [pytest.param(cls, id=cls.name) for cls in STRATEGIES]
over_catalogue = pytest.mark.parametrize("cls", CATALOGUE)
LONG = ("compile", "fp8_dynamic", "fp8_weight_only", "int8_dynamic", "modelopt", "quanto")
"""Those whose deeds take long, and are done like those of others."""
over_deeds = pytest.mark.parametrize(
    "cls",
    [pytest.param(cls, id=cls.name, marks=pytest.mark.wide if cls.name in LONG else ()) for cls in STRATEGIES],
)
over_families = pytest.mark.parametrize("family", some(FAMILIES, "flux"))


def build(family: str) -> Any:
    """A small pipeline; FLUX with an image encoder that no call uses."""
    pipe = pipelines.build(family)
    if family == "flux":
        pipe.register_modules(image_encoder=image_encoder())
    return pipe


@cache
def known(family: str, kind: str = "cuda") -> Facts:
    """The facts of a small pipeline."""
    return facts_of(build(family), kind=kind)


# ---- what is compared -----------------------------------------------------------------------------------------------
def picture(pipe: Any, family: str) -> torch.Tensor:
    """The first output of one call, always from the same seed."""
    output: torch.Tensor = pipe(**inputs(family))[0]
    return output


def modules(pipe: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """Every module of every component with its path."""
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            yield from ((f"{name}.{path}", module) for path, module in part.named_modules())


PLAIN = bool | int | float | str | None


def attributes(pipe: Any) -> dict[str, Any]:
    """Every attribute of the pipeline and its modules, plain ones by value; dtype, device and strides of weights."""
    found: dict[str, Any] = {"pipe": dict(vars(pipe))}
    for path, module in modules(pipe):
        found[path] = {name: v if isinstance(v, PLAIN) else type(v) for name, v in vars(module).items()}
        for key, weight in (*module._parameters.items(), *module._buffers.items()):
            if weight is not None:
                found[f"{path}.{key}"] = (weight.dtype, weight.device, weight.stride())
    return found


def effect(pipe: Any) -> dict[str, Any]:
    """What a strategy can do to a pipeline, in terms that two equal pipelines share."""
    found: dict[str, Any] = {"pipe": {name: shown(value) for name, value in vars(pipe).items()}}
    for path, module in modules(pipe):
        own = {k: v if isinstance(v, PLAIN) else kind(v) for k, v in vars(module).items()}
        tensors = (*module.named_parameters(), *module.named_buffers())
        weights = {k: (type(w), w.dtype, w.device, w.stride()) for k, w in tensors}
        registry: Any = getattr(module, "_diffusers_hook", None)
        hooks: list[Any] = [(n, settings(pipe, registry.hooks[n])) for n in registry._hook_order] if registry else []
        hooks += [len(module._forward_pre_hooks), len(module._forward_hooks)]
        processor: Any = getattr(module, "processor", None)
        attention = (type(processor), dict(vars(processor)) if processor else {})
        found[path] = (own, weights, hooks, shown(getattr(module, "_hf_hook", None)), attention)
    return found


def shown(value: Any) -> Any:
    """A value, or the type and the plain attributes of a thing that is none."""
    if isinstance(value, PLAIN):
        return value
    own = {} if isinstance(value, torch.nn.Module) else getattr(value, "__dict__", {})
    return kind(value), {k: v for k, v in own.items() if isinstance(v, PLAIN | torch.device)}


def kind(value: Any) -> str:
    """The name of its type, as some libraries make one per pipeline."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def settings(pipe: Any, hook: Any) -> dict[str, Any]:
    """A hook's own settings, less what differs between two equal pipelines, and what its callbacks answer."""
    values = {**vars(hook), **vars(getattr(hook, "config", hook))}
    left_out = ("group", "config", "fn_ref", "next_group", "state", "state_manager")
    kept = {key: value for key, value in values.items() if key not in left_out}
    return {key: answers(pipe, v) if isfunction(v) or ismethod(v) else str(v) for key, v in kept.items()}


def answers(pipe: Any, callback: Any) -> list[Any]:
    """What a callback of a hook returns at each of `TIMESTEPS`; those with an argument take the module."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for timestep in TIMESTEPS:
            patch.setattr(pipe, "_current_timestep", timestep, raising=False)
            found.append(callback(*[None] * len(signature(callback).parameters)))
    return found


def variants(cls: type[Strategy], facts: Facts) -> list[Strategy]:
    """Every variant that it does not refuse; where it does, the machine or the dtype is why, and it names itself."""
    found = list(cls.variants(facts))
    refusals = {s: s.refuses(Run(facts)) for s in found}
    assert all(cls.name in refusal for refusal in refusals.values() if refusal)
    return [s for s in found if not refusals[s]]


def reversible(strategy: Any) -> Strategy:
    """The same, keeping what it needs to undo itself where it can."""
    kept: Strategy = replace(strategy, keep_original=True) if hasattr(strategy, "keep_original") else strategy
    return kept


# ---- the card -------------------------------------------------------------------------------------------------------
@over_catalogue
def test_the_card_is_complete(cls: type[Strategy]) -> None:
    first, blank, *rest = (cls.__doc__ or "").splitlines()
    assert first.endswith(".")
    assert blank == ""
    assert rest
    assert cls.name == Path(cls.__module__.replace(".", "/")).name
    assert is_dataclass(cls)
    for field in fields(cls):
        assert field.type, f"{field.name} needs a type, by which it is read from the command line"


def test_every_file_is_in_the_catalogue() -> None:
    folder = Path(str(memplan.strategies.__file__)).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files == {cls.name for cls in STRATEGIES}


@over_catalogue
def test_variants_are_frozen_distinct_and_seated(cls: type[Strategy]) -> None:
    found = max((list(cls.variants(known(family))) for family in FAMILIES), key=len)
    assert found
    assert len(set(found)) == len(found)
    for strategy in found:
        assert strategy.seats
        with pytest.raises(FrozenInstanceError):
            strategy.name = "other"  # type: ignore[misc]


@over_catalogue
@over_families
def test_redraw_is_pure(cls: type[Strategy], family: str) -> None:
    run = Run(known(family))
    for strategy in variants(cls, run.facts):
        first, second = strategy.redraw(run), strategy.redraw(run)
        assert first == second
        assert run == Run(run.facts)
        assert strategy.redraw(first) == first
        changed = {*first.placements, *first.storage, *first.variants, *first.compiled, *first.caches}
        assert changed == {seat.component for seat in strategy.seats}


@over_catalogue
@over_families
def test_finer_settings_lose_or_move_less_and_take_more(cls: type[Strategy], family: str) -> None:
    pipe = build(family)
    facts = facts_of(pipe)
    facts = replace(facts, model=measured(facts.model, dict(pipe.components)))
    for strategy in variants(cls, facts):
        steps = [strategy, *strategy.finer(facts)]
        assert {step.seats for step in steps} == {strategy.seats}
        runs = [step.redraw(Run(facts)) for step in steps if not step.refuses(Run(facts))]
        assert len(runs) == len(steps)
        bills = [simulate(run) for run in runs]
        if any(bill.loss.error for bill in bills):
            for one, finer in pairwise(bills):
                assert finer.loss.error < one.loss.error
                assert finer.peak.weights >= one.peak.weights
        elif len(bills) > 1:
            assert bills[-1].host.pinned < bills[0].host.pinned


# ---- the deed -------------------------------------------------------------------------------------------------------
@over_deeds
@over_families
def test_undo_restores_the_pipeline(cls: type[Strategy], family: str) -> None:
    pipe = build(family)
    expected = picture(pipe, family)
    before = attributes(pipe)
    for strategy in map(reversible, variants(cls, facts_of(pipe, kind="cpu"))):
        if strategy.final:
            continue
        undo = strategy.apply(pipe, "cpu")
        picture(pipe, family)
        undo()
        assert attributes(pipe) == before, strategy
        assert torch.equal(picture(pipe, family), expected), strategy


@over_deeds
@over_families
def test_the_emitted_code_does_what_apply_does(cls: type[Strategy], family: str) -> None:
    for strategy in variants(cls, known(family, "cpu")):
        applied, typed = build(family), build(family)
        strategy.apply(applied, "cpu")
        exec("\n".join(strategy.code("cpu")), {"pipe": typed})
        assert effect(applied) == effect(typed), strategy
        assert effect(applied) != effect(build(family)) or strategy.name in UNSEEN
        assert torch.equal(picture(applied, family), picture(typed, family))


def faster(**settings: Any) -> Callable[[Any], Any]:
    """Puts FasterCache on a transformer, with other settings."""

    def put(pipe: Any) -> None:
        given: dict[str, Any] = {"current_timestep_callback": lambda: pipe.current_timestep} | settings
        pipe.transformer.enable_cache(FasterCacheConfig(is_guidance_distilled=True, **given))

    return put


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda pipe: PromptReuse().apply(pipe, "cpu"), lambda pipe: None),
        (lambda pipe: PromptReuse().apply(pipe, "cpu"), lambda pipe: PromptReuse(kept=3).apply(pipe, "cpu")),
        (faster(attention_weight_callback=lambda _: 0.3), faster(attention_weight_callback=lambda _: 0.5)),
        (faster(), faster(current_timestep_callback=lambda: 300)),
    ],
    ids=["reuse", "kept", "weight", "timestep"],
)
def test_effects_are_told_apart(one: Callable[[Any], Any], other: Callable[[Any], Any]) -> None:
    first, same, second = build("flux"), build("flux"), build("flux")
    one(first)
    one(same)
    other(second)
    assert effect(first) == effect(same)
    assert effect(first) != effect(second)


@over_catalogue
def test_code_is_python_with_imports_first(cls: type[Strategy]) -> None:
    for strategy in variants(cls, known("flux")):
        kinds = [isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse("\n".join(strategy.code())).body]
        assert kinds == sorted(kinds, reverse=True)
        assert all(len(line) <= 120 for line in strategy.code())


@over_catalogue
@over_families
def test_what_it_prints_is_what_people_type(cls: type[Strategy], family: str) -> None:
    facts = known(family)
    for strategy in variants(cls, facts):
        assert parse(str(strategy), facts) == strategy
