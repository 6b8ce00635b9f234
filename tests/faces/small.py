"""Facts of a made-up pipeline: round figures that a reader can add up, and no torch."""

from dataclasses import replace

from memplan import planner
from memplan.facts import (
    GIB,
    MIB,
    Call,
    Component,
    Facts,
    Gpu,
    Group,
    Grouping,
    Host,
    Machine,
    Model,
    Ops,
    Segment,
    Step,
    Trace,
    Weight,
)
from memplan.planner import Recommendation
from memplan.registry import strategies

ACTIVATIONS = {"text_encoder": 64 * MIB, "transformer": 512 * MIB, "vae": 2 * GIB}
PROMPT = "A lighthouse on a cliff above a stormy sea at dusk, and much more"


WORK = (Ops("matmul", "bfloat16", 1, 10, 10),)


def facts(vram: float = 8, ram: float = 32) -> Facts:
    """A text encoder of 2 GiB, a transformer of 4 blocks of 1 GiB and 0.5 GiB beside them, and a VAE of 0.25 GiB."""
    text_encoder = component("text_encoder", "TextEncoder", "transformers", [1024, 1024])
    transformer = component("transformer", "Transformer", "diffusers", [512, 1024, 1024, 1024, 1024])
    vae = component("vae", "Autoencoder", "diffusers", [256])
    transformer = replace(transformer, groupings=(_blocks(transformer), *transformer.groupings))
    lacks = (("tiling", "TextEncoder has no decode() to tile"),)
    parts = (replace(text_encoder, lacks=lacks), transformer, replace(vae, cast=()))
    order = ("text_encoder", "transformer", "vae")
    model = Model("small", "SmallPipeline", parts, order, source="folder /models/small", versions=(("torch", "2.13"),))
    return Facts(machine(vram, ram), model, _trace())


def machine(vram: float, ram: float) -> Machine:
    """A card with a PCIe 4.0 link of those sizes, in GiB."""
    gpu = Gpu("a card", int(vram * GIB), int(vram * GIB), link=30e9, link_name="PCIe 4.0 x16", capability=(8, 9))
    return Machine(gpu, Host(int(ram * GIB), int(ram * GIB)))


def found(vram: float = 8, ram: float = 32) -> Recommendation:
    """What memplan recommends for them."""
    return planner.recommend(facts(vram, ram), strategies())


def component(name: str, class_name: str, library: str, sizes: list[int]) -> Component:
    """A component of bfloat16 layers of so many MiB, all of which can be cast."""
    weights = tuple(Weight(f"layers.{i}.weight", size * MIB // 2, "bfloat16") for i, size in enumerate(sizes))
    groups = tuple(Group(f"layers.{i}", f"layers.{i}", (i,)) for i in range(len(sizes)))
    leaf = Grouping("leaf_level", None, groups)
    return Component(name, class_name, library, "bfloat16", weights, (leaf,), tuple(range(len(sizes))))


def _blocks(transformer: Component) -> Grouping:
    blocks = tuple(Group(f"layers.{i}", f"layers.{i}", (i,)) for i in range(1, len(transformer.weights)))
    return Grouping("block_level", 1, (Group("", "", (0,), streamed=False), *blocks))


def _trace() -> Trace:
    calls = (
        _call("text_encoder", "forward", "text encoding", 2),
        _call("transformer", "forward", "denoising", 5),
        _call("vae", "decode", "decoding", 1),
    )
    tiled = replace(calls[2], variant=("tiled",), segments=tuple(replace(s, peak=256 * MIB) for s in calls[2].segments))
    shown = (("prompt", f"{PROMPT!r}"[:40] + "…'"), ("height", "1024"))
    return Trace("cuda", calls, (Step(0, 1), Step(1, 20), Step(2, 1)), (tiled,), shown, ("one assumption",))


def _call(name: str, method: str, phase: str, layers: int) -> Call:
    """Layers one after the other; the last one makes the peak."""
    modules = ("", *(f"layers.{i}" for i in range(layers)))
    peaks = [ACTIVATIONS[name] // (2 if i < layers - 1 else 1) for i in range(layers)]
    middle = [Segment((i + 1,), (i + 1,), 0, peak, 1, WORK) for i, peak in enumerate(peaks)]
    segments = (Segment((0,), (), 0, 0, 0), *middle, Segment((), (0,), 0, 0, 0))
    return Call(name, method, phase, 0, modules, ("", "aten.mm"), segments)
