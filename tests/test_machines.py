"""Plans for machines that are not a CUDA card under Linux: one pool, little to pin, other kernels, dtypes that lack."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from memplan import planner
from memplan.faces.report import bill, hardware
from memplan.faces.report import json as report
from memplan.facts import GIB, MIB, Facts, Gpu, Host
from memplan.planner import Plan, Recommendation, draw
from memplan.registry import parse, strategies
from memplan.run import OnCall, Run
from memplan.simulator.host import LIBRARIES
from memplan.strategies import LayerwiseCasting, ModelOffload
from tests.faces import small

ALL = ("text_encoder", "transformer", "vae")


def on(facts: Facts, gpu: Gpu | None = None, host: Host | None = None) -> Facts:
    here = facts.machine
    return replace(facts, machine=replace(here, gpu=gpu or here.gpu, host=host or here.host))


def apple(usable: float, available: float, total: float = 32) -> Facts:
    gpu = Gpu("Apple M2 Max", int(usable * GIB), int(usable * GIB), kind="mps", unified=True, lacks=("float64",))
    return on(small.facts(), gpu, Host(int(total * GIB), int(available * GIB)))


def recommend(facts: Facts) -> Recommendation:
    return planner.recommend(facts, strategies())


# ---- one pool --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("usable", "available", "vram"), [(24, 30, 24), (24, 10, 10), (24, 24, 24)])
def test_a_unified_device_has_no_more_than_its_host(usable: float, available: float, vram: float) -> None:
    machine = apple(usable, available).machine
    assert (machine.vram, machine.ram) == (vram * GIB, available * GIB)


def test_a_reserve_is_kept_of_what_the_pool_has() -> None:
    assert replace(apple(24, 10).machine, reserve=2 * GIB).vram == 8 * GIB


@dataclass(frozen=True)
class Elsewhere(ModelOffload):
    """What a plug-in could do on a unified device."""

    def refuses(self, run: Run) -> str | None:
        return None


def test_device_and_host_memory_of_one_pool_are_added_up() -> None:
    plan = draw(apple(24, 9), [Elsewhere(ALL)])
    need, weights = plan.bill.peak.memory.required, plan.bill.host.peak
    assert isinstance(plan.run.placement("vae"), OnCall)
    assert (plan.margin, plan.host_margin) == (9 * GIB - need, 9 * GIB - need - weights)
    assert need < 9 * GIB
    assert weights < 9 * GIB
    assert not plan.fits
    assert f"{(need + weights) / GIB:.2f} GiB of memory for device and host together" in str(plan.shortages[-1])


def test_two_pools_are_not() -> None:
    plan = draw(small.facts(24, 12), [ModelOffload(ALL)])
    assert plan.fits
    assert plan.host_margin == 12 * GIB - plan.bill.host.peak


def test_everything_on_a_unified_device_takes_its_memory_once() -> None:
    need = draw(apple(24, 24), ()).bill.peak.memory.required
    both = need + LIBRARIES
    assert draw(apple(24, both / GIB), ()).fits
    found = recommend(apple(24, (both - MIB) / GIB))
    assert all(plan.bill.host.peak == LIBRARIES for plan in found.front)
    (short,) = draw(apple(24, (both - MIB) / GIB), ()).shortages
    assert (short.of, short.missing) == ("host", MIB)
    assert [short.of for short in draw(apple(24, (need - MIB) / GIB), ()).shortages] == ["device", "host"]


# ---- what may be pinned ----------------------------------------------------------------------------------------------
def pinning(limit: int | None, system: str = "WSL", vram: float = 4) -> Facts:
    return on(small.facts(vram), host=Host(32 * GIB, 32 * GIB, pinnable=limit, system=system))


def pinned(plans: Iterable[Plan]) -> list[int]:
    return [plan.bill.host.pinned for plan in plans]


def test_plans_that_pin_too_much_are_not_picked() -> None:
    free, limited = recommend(pinning(None)), recommend(pinning(3 * GIB))
    assert max(pinned(plan for _, plan in free.picks)) > 3 * GIB
    assert 0 < max(pinned(plan for _, plan in limited.picks)) <= 3 * GIB
    assert all(plan.fits for _, plan in limited.picks)


def test_where_nothing_may_be_pinned_there_are_still_plans() -> None:
    found = recommend(pinning(0))
    assert {p for _, plan in found.picks for p in pinned([plan])} == {0}


def test_a_plan_that_pins_too_much_says_so() -> None:
    facts = pinning(GIB, vram=8)
    plan = draw(facts, [parse("group_offload:transformer,level=block_level,blocks=1,stream=true", facts)])
    assert (plan.margin >= 0, plan.host_margin >= 0, plan.fits) == (True, True, False)
    assert plan.spare == plan.pin_margin == GIB - plan.bill.host.pinned
    assert str(plan.shortages[-1]) == "4.00 GiB of pinned host memory, 3,072 MiB more than the 1.00 GiB there are"


def test_programs_are_told_which_memory_is_short() -> None:
    facts = pinning(GIB, vram=8)
    plan = draw(facts, [parse("group_offload:transformer,level=block_level,blocks=1,stream=true", facts)])
    data = json.loads(report.recommendation(Recommendation(facts, (plan,), ())))
    assert (data["shortage"]["memory"], data["shortage"]["missing"]) == ("pinned", 3 * GIB)
    assert (data["machine"]["host"]["pinnable"], data["machine"]["host"]["system"]) == (GIB, "WSL")


# ---- what is said ----------------------------------------------------------------------------------------------------
def of(kind: str, **facts: object) -> Gpu:
    return Gpu("a card", 8 * GIB, 8 * GIB, kind=kind, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "stack"), [("rocm", "ROCm"), ("xpu", "oneAPI"), ("mps", "Metal")])
def test_kernels_of_another_maker_are_an_assumption(kind: str, stack: str) -> None:
    facts = on(small.facts(), of(kind))
    assert facts.assumptions[0] == "one assumption"
    assert f"CUDA's kernels; {stack}'s were not followed" in facts.assumptions[1]
    assert f"{stack}'s were not followed" in " ".join(bill.bill(draw(facts, ())).split())
    assert facts.assumptions == tuple(json.loads(report.bill(draw(facts, ())))["workload"]["assumptions"])


def test_a_cuda_card_under_linux_and_no_card_have_no_caveat() -> None:
    host = Host(32 * GIB, 32 * GIB, system="Linux")
    assert on(small.facts(), host=host).assumptions == ("one assumption",)
    nothing = replace(small.facts(), machine=replace(small.facts().machine, gpu=None))
    assert nothing.assumptions == ("one assumption",)


@pytest.mark.parametrize(("system", "told"), [("Windows", 1), ("WSL", 2), ("Linux", 0), ("", 0)])
def test_windows_spills_and_wsl_hides_its_limit(system: str, told: int) -> None:
    said = pinning(GIB, system).assumptions[1:]
    assert len(said) == told
    assert ("shared GPU memory is not counted" in " ".join(said)) == (told > 0)


def test_a_dtype_that_lacks_is_named_with_the_components_that_have_it() -> None:
    facts = on(small.facts(), of("mps", unified=True, lacks=("float64", "bfloat16")))
    (said,) = (text for text in facts.assumptions if "cannot" in text)
    assert said == "a card cannot compute in bfloat16: load text_encoder, transformer, vae in another dtype"


def test_the_machine_is_shown_with_what_limits_it() -> None:
    host = Host(32 * GIB, 20 * GIB, swap=8 * GIB, pinnable=500 * MIB, system="WSL")
    text = " ".join(" ".join(hardware.machine(on(small.facts(), of("mps", lacks=("float64",)), host).machine)).split())
    assert "no float64" in text
    assert "20.00 GiB of 32.00 GiB of memory available, in the virtual machine of WSL, at most 500 MiB" in text
    assert "8.00 GiB of swap not counted" in text


def test_float8_is_not_offered_where_torch_has_none() -> None:
    facts = on(small.facts(), of("mps", lacks=("float64", "float8_e4m3fn")))
    refusal = LayerwiseCasting("transformer").refuses(Run(facts)) or ""
    assert refusal.startswith("layerwise_casting stores weights in float8_e4m3fn, which torch does not have on")
    assert "layerwise_casting" not in {
        s.name for p in planner.recommend(facts, strategies()).front for s in p.strategies
    }
    assert any(sentence.endswith("no call under Metal was compared") for sentence in facts.assumptions)


def test_what_is_stored_quantized_has_lost_before() -> None:
    facts = small.facts()
    parts = list(facts.model.components)
    parts[1] = replace(parts[1], weights=tuple(replace(w, dtype="uint8") for w in parts[1].weights))
    facts = replace(facts, model=replace(facts.model, components=tuple(parts)))
    said = "transformer: stored quantized already, and what that lost before is in no figure of loss"
    assert said in facts.assumptions
    assert said not in small.facts().assumptions
