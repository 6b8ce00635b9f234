"""What diffusers does not offer for a ModularPipeline."""

from collections.abc import Iterator, Mapping
from typing import Any

from diffusers import ModularPipeline


def lacks(pipe: Any) -> Iterator[tuple[str, str]]:
    """(technique, sentence) for each technique that `pipe` lacks as a whole."""
    if isinstance(pipe, ModularPipeline):
        kind = f"{type(pipe).__name__} is a ModularPipeline"
        yield (
            "model_offload",
            f"{kind}, which has no chain of components: a ComponentsManager chooses among them by what is free in the "
            f"run, which no plan can tell before",
        )
        yield "sequential_offload", f"{kind}, for which diffusers has none; group_offload of leaves holds as little"


def lacks_of_parts(pipe: Any, modules: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The same for its components, by name: it runs on the device of the first one."""
    if not isinstance(pipe, ModularPipeline) or not modules:
        return {}
    first = next(iter(modules))
    return {first: {"set_aside": f"{type(pipe).__name__} runs where {first} is, its first component"}}
