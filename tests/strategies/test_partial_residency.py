"""Parts of a component in slots: equal pictures, whatever the weights are; what is refused; and copies that hide."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memplan.errors import BadInput
from memplan.facts import Call, Component, Group, Grouping, Ops, Rates, Segment, Step, Weight
from memplan.registry import parse_plan
from memplan.run import Partly, Run, Stored, spread
from memplan.simulator import Bill, simulate
from memplan.simulator.movers import outside
from memplan.simulator.partial import away, streamed
from memplan.simulator.seconds import seconds
from memplan.simulator.weights import anonymous
from memplan.strategies import LayerwiseCasting, PartialResidency
from tests.conformance.device import Device, scarce, slots, streams
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.pipelines.loras import ATTENTION, add, with_lora
from tests.pipelines.quantized import four_bit_parts, int8_parts
from tests.some import some
from tests.test_strategy_laws import attributes, picture

copiers: Any = import_module("memplan.strategies.streaming.copiers")
packing: Any = import_module("memplan.strategies.streaming.packing")
turns: Any = import_module("memplan.strategies.streaming.slots")
weighing: Any = import_module("memplan.strategies.streaming.weights")
FOUR = PartialResidency("transformer", 4)


# ---- which groups -------------------------------------------------------------------------------------------------
def test_groups_are_spread_and_the_last_one_is_streamed() -> None:
    assert spread([1] * 8, 1) == (7,)
    assert spread([1] * 8, 3) == (1, 4, 7)
    assert spread([1] * 8, 8) == spread([1] * 8, 99) == tuple(range(8))
    assert spread([], 3) == ()


def test_what_is_far_from_the_mean_stays() -> None:
    assert spread([100, 10, 100, 100, 0, 100], 9) == (0, 2, 3, 5)
    assert spread([10] * 9 + [1000], 9) == ()
    assert spread([100] * 9 + [1000], 9) == tuple(range(9))


@pytest.mark.parametrize(
    ("strategy", "kind", "sentence"),
    [
        (PartialResidency("transformer", 0), "cuda", "streamed is from 1 to 9"),
        (PartialResidency("transformer", 10), "cuda", "streamed is from 1 to 9"),
        (PartialResidency("transformer", 1), "xpu", "needs a CUDA or ROCm device"),
        (PartialResidency("transformer", 1, "sequential"), "cuda", "no groups of level sequential"),
        (PartialResidency("text_encoder_2", 1, modules="nothing"), "cuda", "inside nothing"),
        (PartialResidency("vae", 1, "leaf_level"), "cuda", "called as decode()"),
    ],
)
def test_refuses(strategy: PartialResidency, kind: str, sentence: str) -> None:
    assert sentence in (strategy.refuses(Run(facts_of(build("flux"), kind=kind))) or "")


# ---- on demand ------------------------------------------------------------------------------------------------------
TURNS = "partial_residency:transformer,transformer_2,streamed=1"


def experts(plan: str, **stored: Stored) -> tuple[Run, Bill]:
    facts = facts_of(build("wan22"))
    run = Run(facts)
    for name, how in stored.items():
        run = run.store(name, how)
    for strategy in parse_plan(plan, facts):
        run = strategy.redraw(run)
    return run, simulate(run)


def test_of_experts_that_take_turns_only_one_is_there() -> None:
    run, beside = experts(TURNS)
    _, apart = experts(f"{TURNS},on_demand=true")
    parts = [run.facts.model.component(name) for name in ("transformer", "transformer_2")]
    here = [outside(part, run.placement(part.name), run.stored(part.name)) for part in parts]
    assert [b.weights - a.weights for b, a in zip(beside.peaks, apart.peaks, strict=True)] == [
        sum(here) if peak.component not in ("transformer", "transformer_2") else here[0] for peak in beside.peaks
    ]
    assert apart.traffic.to_device - beside.traffic.to_device == sum(here)
    assert apart.traffic.to_host == 0
    assert apart.host == beside.host  # what is not streamed stays in its files


def test_what_was_made_is_in_host_memory_meanwhile() -> None:
    cast = Stored("float8_e4m3fn")
    run, beside = experts(TURNS, transformer=cast)
    _, apart = experts(f"{TURNS},on_demand=true", transformer=cast)
    part = run.facts.model.component("transformer")
    made = anonymous(part, cast, away(part, run.placement("transformer"), cast))
    assert made > 0
    assert apart.host.steady - beside.host.steady == made


def test_on_demand_is_offered_where_several_are_large_and_refused_where_nobody_else_is_called() -> None:
    offered = {s.component for s in PartialResidency.variants(facts_of(build("wan22"))) if s.on_demand}
    assert offered == {"transformer", "transformer_2"}
    assert not any(s.on_demand for s in PartialResidency.variants(facts_of(build("flux"))))
    facts = facts_of(build("flux"))
    strategy = PartialResidency("transformer", 2, on_demand=True)
    assert strategy.refuses(Run(facts)) is None
    alone = replace(facts, trace=replace(facts.trace, calls=facts.trace.calls[-1:], timeline=(Step(0, 1),)))
    assert alone.trace.calls[0].component == "transformer"
    assert "would never leave" in (strategy.refuses(Run(alone)) or "")
    four_bits = Run(facts).store("transformer", Stored("nf4"))
    assert "scales of transformer" in (strategy.refuses(four_bits) or "")


# ---- whatever the weights are ---------------------------------------------------------------------------------------
def int8(pipe: Any) -> None:
    int8_parts(pipe)


def float8(pipe: Any) -> None:
    quantization: Any = pytest.importorskip("torchao.quantization")
    quantization.quantize_(pipe.transformer, quantization.Float8WeightOnlyConfig())


def cast(pipe: Any) -> None:
    LayerwiseCasting("transformer").apply(pipe, "cpu")


def channels_last(pipe: Any) -> None:
    pipe.transformer.to(memory_format=torch.channels_last)


PREPARED: dict[str, Callable[[Any], Any]] = {
    "cast": cast,
    "int8": int8,
    "float8": float8,
    "four_bit": four_bit_parts,
    "with_lora": with_lora,
    "channels_last": channels_last,
}


@pytest.mark.parametrize("prepared", some(PREPARED, "cast", "int8"))
def test_the_picture_is_the_same_and_every_tensor_is_back(prepared: str) -> None:
    pipe = build("flux")
    PREPARED[prepared](pipe)
    expected, before = picture(pipe, "flux"), attributes(pipe)
    tensors = dict(pipe.transformer.named_parameters())
    held = {
        name: tensor.untyped_storage().nbytes()
        for name, tensor in tensors.items()
        if type(tensor).__name__ == "Parameter"
    }
    undo = FOUR.apply(pipe, "cpu")
    for _ in range(2):
        assert torch.equal(picture(pipe, "flux"), expected)
    undo()
    assert attributes(pipe) == before
    after = dict(pipe.transformer.named_parameters())
    assert all(after[name] is tensor for name, tensor in tensors.items())
    assert {name: after[name].untyped_storage().nbytes() for name in held} == held
    assert torch.equal(picture(pipe, "flux"), expected)


@pytest.mark.parametrize(
    "form",
    some(("", "layerwise_casting", "int8_weight_only", "fp8_weight_only", "bnb_4bit", "compute_dtype"), "bnb_4bit"),
)
def test_what_is_priced_is_what_is_packed(form: str) -> None:
    """Group by group, to the byte, at both levels."""
    pipe = build("flux")
    facts = facts_of(pipe, kind="cpu")
    plan = parse_plan(form and f"{form}:transformer", facts)
    for strategy in plan:
        strategy.apply(pipe, "cpu")
    for own in (FOUR, PartialResidency("transformer", 30, "leaf_level")):
        run = Run(facts)
        for strategy in (*plan, own):
            assert strategy.refuses(run) is None
            run = strategy.redraw(run)
        transformer = facts.model.component("transformer")
        said = streamed(transformer, own.placement, run.stored("transformer"))
        undo = own.apply(pipe, "cpu")
        packs = vars(pipe.transformer)["_memplan_slots"].packs
        assert [pack.nbytes for pack in packs] == [group.packed for group in said]
        undo()


def test_a_cast_layer_leaves_no_copy_beside_the_slot() -> None:
    """After each cast layer its weights are those of the slot again."""
    pipe = build("flux")
    cast(pipe)
    undo = PartialResidency("transformer", 9).apply(pipe, "cpu")
    block = pipe.transformer.single_transformer_blocks[0]
    found: list[bool] = []

    def look(*_: Any) -> None:
        (slot,) = vars(pipe.transformer)["_memplan_slots"].here.values()
        where = slot.memory.untyped_storage().data_ptr()
        found.extend(t.untyped_storage().data_ptr() == where for t in block.parameters())

    hook = block.register_forward_hook(look, prepend=True)
    picture(pipe, "flux")
    hook.remove()
    undo()
    assert found
    assert all(found)


def test_a_lora_that_is_loaded_afterwards_computes_and_leaves() -> None:
    plain, streamed = build("flux"), build("flux")
    undo = FOUR.apply(streamed, "cpu")
    bare = picture(streamed, "flux")
    for pipe in (plain, streamed):
        torch.manual_seed(0)
        add(pipe.transformer, ATTENTION)
    expected = picture(plain, "flux")
    assert not torch.equal(expected, bare)
    assert torch.equal(picture(streamed, "flux"), expected)
    streamed.transformer.fuse_lora()
    plain.transformer.fuse_lora()
    assert torch.equal(picture(streamed, "flux"), picture(plain, "flux"))
    undo()
    assert torch.equal(picture(streamed, "flux"), picture(plain, "flux"))


def test_weights_that_are_replaced_are_packed_anew_or_refused() -> None:
    pipe = build("flux")
    undo = PartialResidency("transformer", 9).apply(pipe, "cpu")
    before = picture(pipe, "flux")
    weight = pipe.transformer.single_transformer_blocks[0].proj_out.weight
    weight.data = weight.data * 2
    changed = picture(pipe, "flux")
    assert not torch.equal(changed, before)
    undo()
    assert torch.equal(picture(pipe, "flux"), changed)
    undo = PartialResidency("transformer", 9).apply(pipe, "cpu")
    weight.data = weight.data.to(torch.float16)
    with pytest.raises(BadInput, match="undo, change, apply"):
        picture(pipe, "flux")


def test_it_stays_where_it_is() -> None:
    pipe = build("flux")
    undo = FOUR.apply(pipe, "cpu")
    assert pipe.to("cpu") is pipe
    with pytest.raises(BadInput, match="streamed in part to cpu: undo"):
        pipe.to(torch.float16)
    with pytest.raises(BadInput, match="streamed in part already"):
        FOUR.apply(pipe, "cpu")
    undo()
    assert "to" not in vars(pipe.transformer)


def test_it_is_saved_as_it_was(tmp_path: Path) -> None:
    pipe = build("flux")
    before = {name: weight.clone() for name, weight in pipe.transformer.state_dict().items()}
    FOUR.apply(pipe, "cpu")
    picture(pipe, "flux")
    pipe.transformer.save_pretrained(tmp_path)
    again = type(pipe.transformer).from_pretrained(tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in again.state_dict().items())


def test_a_call_that_fails_leaves_nothing_on_the_device() -> None:
    pipe = build("flux")
    expected = picture(pipe, "flux")
    undo = FOUR.apply(pipe, "cpu")

    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    hook = pipe.transformer.single_transformer_blocks[4].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        picture(pipe, "flux")
    slots = vars(pipe.transformer)["_memplan_slots"]
    assert (slots.slots, slots.here) == ([], {})
    hook.remove()
    assert torch.equal(picture(pipe, "flux"), expected)
    undo()


@pytest.mark.slow
@pytest.mark.wide
def test_compiled_blocks_give_about_the_same_picture() -> None:
    pipe, compiled = build("flux"), build("flux")
    compiled.transformer.compile_repeated_blocks()
    expected = picture(compiled, "flux")
    FOUR.apply(pipe, "cpu")
    pipe.transformer.compile_repeated_blocks()
    for _ in range(2):
        assert torch.allclose(picture(pipe, "flux"), expected, atol=1e-5)


@pytest.mark.parametrize("kept", [True, False])
def test_a_lora_that_is_fused_while_the_resident_part_is_lent_stays_fused(kept: bool) -> None:
    pipe = with_lora(build("flux"))
    with Device(pipe) as device, slots(device), streams():
        for name in ("text_encoder", "text_encoder_2", "vae"):
            getattr(pipe, name).to("cuda")
        PartialResidency("transformer", 2, on_demand=True).apply(pipe, "cuda")
        weights = [block.attn.to_q.base_layer.weight for block in pipe.transformer.transformer_blocks]
        weights += [block.attn.to_q.base_layer.weight for block in pipe.transformer.single_transformer_blocks]
        assert {device.has(weight) for weight in weights} == {True, False}
        before = [weight.detach().cpu().clone() for weight in weights]
        pipe.transformer.fuse_lora()
        if not kept:
            pipe.transformer.unload_lora()
        fused = [weight.detach().cpu().clone() for weight in weights]
        picture(pipe, "flux")
        assert not any(map(device.has, weights))
        assert all(torch.equal(weight.cpu(), one) for weight, one in zip(weights, fused, strict=True))
        assert not any(map(torch.equal, before, fused))


def test_where_memory_ends_while_it_is_lent_nothing_is_left_behind() -> None:
    pipe = build("flux")
    before = attributes(pipe)
    with scarce(pipe) as device, slots(device), streams():
        with pytest.raises(torch.OutOfMemoryError):
            PartialResidency("transformer", 2, on_demand=True).apply(pipe, "cuda")
        assert not device.held["transformer"]
    assert attributes(pipe) == before


# ---- the order of things ------------------------------------------------------------------------------------------
class Blocks(torch.nn.Module):
    """Linear blocks in a list, called in an order that can be changed."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(number))
        self.order = list(range(number))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in self.order:
            x = self.blocks[number](x)
        return x


@pytest.mark.parametrize(
    "order", [[3, 2, 1, 0], *(pytest.param(o, marks=pytest.mark.wide) for o in ([0, 2], [1, 1, 3, 3], []))]
)
def test_any_order_of_calls_gives_the_same(order: list[int]) -> None:
    net, x = Blocks(4, 8), torch.rand(2, 8)
    pipe = SimpleNamespace(net=net)
    plain: list[torch.Tensor] = []
    for net.order in (order, [0, 1, 2, 3], order):
        plain.append(net(x))
    undo = PartialResidency("net", 3).apply(pipe, "cpu")
    net.order = order
    assert torch.equal(net(x), plain[0])
    net.order = [0, 1, 2, 3]
    assert torch.equal(net(x), plain[1])
    assert torch.equal(
        net.blocks[3](x),
        torch.nn.functional.linear(x, net.blocks[3].get_parameter("weight"), net.blocks[3].get_parameter("bias")),
    )
    net.order = order
    assert torch.equal(net(x), plain[2])
    undo()


def packed(net: Blocks) -> list[Any]:
    """Each block's weights."""
    found = [weighing.standing(block).values() for block in net.blocks]
    return [packing.Pack([weighing.Weight(*one) for one in own], "cpu") for own in found]


class Recorder:
    """Streams and events that write down what they are told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []
        self.events = 0

    def stream(self, name: str) -> Any:
        def record_event() -> str:
            self.events += 1
            self.said.append((name, "records", f"e{self.events}"))
            return f"e{self.events}"

        def wait_event(event: str) -> None:
            self.said.append((name, "waits for", event))

        def wait_stream(other: Any) -> None:
            self.said.append((name, "waits for", other.name))

        return SimpleNamespace(name=name, record_event=record_event, wait_event=wait_event, wait_stream=wait_stream)


def test_the_device_waits_and_the_host_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks, two slots: the third copy waits for the first block, each block for its copy."""
    recorder = Recorder()
    device = recorder.stream("device")
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: recorder.stream("copies"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _=None: device)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    net = Blocks(3, 8)
    packs = packed(net)
    slots = turns.Slots("net", packs, copiers.OnStream("cuda"), "cpu")
    slots.begin()
    for number in range(3):
        slots.enter(number)
        recorder.said.append(("device", "computes", str(number)))
        slots.leave(number)
    slots.end()
    assert recorder.said == [
        ("device", "records", "e1"), ("copies", "waits for", "e1"), ("copies", "records", "e2"),
        ("device", "records", "e3"), ("copies", "waits for", "e3"), ("copies", "records", "e4"),
        ("device", "waits for", "e2"), ("device", "computes", "0"),
        ("device", "records", "e5"), ("copies", "waits for", "e5"), ("copies", "records", "e6"),
        ("device", "waits for", "e4"), ("device", "computes", "1"), ("device", "records", "e7"),
        ("device", "waits for", "e6"), ("device", "computes", "2"), ("device", "records", "e8"),
        ("device", "waits for", "copies"),
    ]  # fmt: skip


def test_slots_are_as_many_and_as_large_as_needed() -> None:
    net = Blocks(4, 8)
    packs = packed(net)
    one, two = (
        turns.Slots("net", packs[:1], copiers.OnThread(), "cpu"),
        turns.Slots("net", packs, copiers.OnThread(), "cpu"),
    )
    one.begin()
    two.begin()
    assert [len(one.slots), len(two.slots)] == [1, 2]
    assert {slot.memory.nbytes for slot in (*one.slots, *two.slots)} == {512 + 512}
    one.end()
    two.end()


# ---- copies that hide ---------------------------------------------------------------------------------------------
COPY, COMPUTE, NUMBER = 0.05, 0.04, 8


def timed(copying: float) -> tuple[float, list[float], list[float]]:
    """Seconds of a call of which every block is streamed; those of each block, and of each copy."""
    net, x, worked, copied = Blocks(NUMBER, 256), torch.rand(64, 256), [0.0], [0.0]

    def move(memory: torch.Tensor, source: torch.Tensor) -> None:
        begun = time.perf_counter()
        memory.copy_(source)
        time.sleep(max(copying - (time.perf_counter() - begun), 0))
        copied.append(time.perf_counter() - begun)

    def work(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        begun = time.perf_counter()
        while time.perf_counter() - begun < COMPUTE:
            torch.nn.functional.linear(output, module.get_parameter("weight"))
        worked.append(time.perf_counter() - begun)

    undo = PartialResidency("net", NUMBER).apply(SimpleNamespace(net=net), "cpu", copiers.OnThread(move))
    for block in net.blocks:
        block.register_forward_hook(work, prepend=True)
    with torch.no_grad():
        begun = time.perf_counter()
        net(x)
        taken = time.perf_counter() - begun
    undo()
    return taken, worked[1:], copied[1:]


def predicted(worked: list[float], copied: list[float]) -> float:
    """What the simulator says of such blocks and copies."""
    paths = tuple(f"blocks.{number}" for number in range(NUMBER))
    weights = tuple(Weight(f"{path}.weight", 512, "int8") for path in paths)
    groups = tuple(Group(path, path, (number,)) for number, path in enumerate(paths))
    component = Component("net", "Net", "other", "int8", weights, (Grouping("block_level", 1, groups),))
    segments = tuple(
        Segment((n,), (n,), 0, 0, 0, (Ops("matmul", "int8", 1, round(1e6 * busy), 0),)) for n, busy in enumerate(worked)
    )
    rates = Rates((("matmul", "int8", 1e6),), 1e15, 0, 0, pinned=512 / (sum(copied) / NUMBER))
    call = Call("net", "forward", "", 0, paths, ("mm",), segments)
    return seconds(component, Partly("block_level", NUMBER), Stored(), call, rates)


@pytest.mark.parametrize("copying", [COPY, COPY / 3])
def test_copies_hide_behind_what_is_computed(copying: float) -> None:
    """What takes longer counts, and the first copy or the last block beside it: not the sum. All in one real run."""
    taken, worked, copied = timed(copying)
    assert len(copied) == NUMBER
    assert taken < 0.8 * (sum(worked) + sum(copied))
    assert taken == pytest.approx(predicted(worked, copied), rel=0.2)
    assert taken > max(sum(worked), sum(copied))
