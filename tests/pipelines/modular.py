"""Small ModularPipelines of the components of small pipelines."""

from typing import Any

import diffusers

_BLOCKS = {
    "flux": "FluxAutoBlocks",
    "sdxl": "StableDiffusionXLAutoBlocks",
    "wan": "WanBlocks",
    "qwenimage": "QwenImageAutoBlocks",
}
"""What makes a picture of a prompt, by the family of the pipeline whose components it takes."""
PREFIX = "modular_"
MODULAR = tuple(f"{PREFIX}{family}" for family in _BLOCKS)


def blocks(family: str) -> Any:
    """The blocks of a family, which hold no components."""
    return getattr(diffusers, _BLOCKS[family])()


def modular(pipe: Any, family: str) -> diffusers.ModularPipeline:
    """A ModularPipeline with the components of `pipe`."""
    made = blocks(family).init_pipeline()
    wanted = made.null_component_names
    made.update_components(**{name: part for name, part in pipe.components.items() if name in wanted and part})
    return made


def taken(call: dict[str, Any], family: str) -> dict[str, Any]:
    """What of `call` the blocks take, so that they give the picture alone: guidance is a component's."""
    names = {given.name for given in blocks(family).inputs}
    given = {name: value for name, value in call.items() if name in names}
    return {**given, "output": "videos" if family == "wan" else "images"}
