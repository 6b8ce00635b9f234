"""Which components of a pipeline others offload, cast and quantize, and how large they are after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.facts import TEXT_ENCODING, Component, Facts
from memplan.registry import JOIN, denoiser, parse
from memplan.run import Run

HALF, QUARTER = 0.5, 0.25
"""What 8 and 4 bits leave of a component in the estimates of diffusers' skill."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of all components, and of the largest one."""

    total: float
    largest: float


def plain(facts: Facts) -> Sizes:
    """As loaded: S_total and S_max."""
    return Sizes(facts.model.size, facts.model.largest)


def cast(facts: Facts) -> Sizes:
    """S_total_lc and S_max_lc: with every component of `castable` in float8, as measured."""
    names = castable(facts)
    sizes = [c.cast_size if c.name in names else c.size for c in facts.model.components]
    return Sizes(sum(sizes), max(sizes))


def shrunk(facts: Facts, share: float) -> Sizes:
    """S_total_q and S_max_q: with `share` of the components that are worth quantizing."""
    names = heavy(facts)
    sizes = [c.size * (share if c.name in names else 1.0) for c in facts.model.components]
    return Sizes(sum(sizes), max(sizes))


def activations(facts: Facts) -> int:
    """A: the most bytes of activations of any call, as memplan has followed them."""
    return max(call.activations for call in facts.trace.calls)


def forwards(facts: Facts) -> tuple[str, ...]:
    """The denoisers and text encoders: what is called as forward(), which VAEs are not."""
    called = {call.component for call in facts.trace.calls if call.method == "forward"}
    return tuple(c.name for c in facts.model.components if c.name in called)


def castable(facts: Facts) -> tuple[str, ...]:
    """Those of them that layerwise casting does not refuse."""
    return tuple(name for name in forwards(facts) if willing(facts, f"layerwise_casting:{name}"))


def heavy(facts: Facts) -> tuple[str, ...]:
    """The denoiser, and the largest text encoder: what is worth quantizing."""
    encoding = {call.component for call in facts.trace.calls if call.phase == TEXT_ENCODING and call.component}
    encoders: list[Component] = [c for c in facts.model.components if c.name in encoding]
    largest = sorted(encoders, key=lambda c: c.size)[-1:]
    return (denoiser(facts).name, *(c.name for c in largest))


def willing(facts: Facts, text: str) -> bool:
    """Whether the technique that `text` names can join a run of nothing else."""
    return parse(text, facts).refuses(Run(facts)) is None


def joined(texts: Sequence[str]) -> str:
    """The plan of these parts, as people type it."""
    return JOIN.join(filter(None, texts))
