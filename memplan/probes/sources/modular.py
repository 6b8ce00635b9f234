"""A ModularPipeline in memory becomes a twin: its blocks run as they are, on components with fake weights."""

import copy
import inspect
from collections.abc import Iterator
from typing import Any

from diffusers import ModularPipeline

from memplan.errors import BadInput
from memplan.probes.fakes.twin import Twin, live_twin, modules_of


def modular_twin(pipe: ModularPipeline) -> Twin:
    """The twin of a ModularPipeline with loaded components, which is only read.

    Its call takes what the blocks take. Raises BadInput where nothing is loaded, and what live_twin() raises.
    """
    if not modules_of(pipe):
        missing = ", ".join(pipe.null_component_names)
        raise BadInput(f"{type(pipe).__name__} has no component with weights: load {missing} with load_components().")
    twin = live_twin(pipe)
    blocks: Any = copy.deepcopy(pipe._blocks)  # a progress bar is switched off in each block
    _quiet(blocks)
    vars(twin.pipe).update(_blocks=blocks, _components_manager=None)
    twin.pipe.__class__ = _class(type(pipe), tuple(_parameters(blocks)), blocks.doc)
    return twin


def _quiet(blocks: Any) -> None:
    if hasattr(blocks, "set_progress_bar_config"):
        blocks.set_progress_bar_config(disable=True)
    for block in blocks.sub_blocks.values():
        _quiet(block)


def _parameters(blocks: Any) -> Iterator[inspect.Parameter]:
    """What a call of these blocks takes, under its own name."""
    kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    for given in blocks.inputs:
        if given.name:
            default = empty if given.required and given.default is None else given.default
            yield inspect.Parameter(given.name, kind, default=default, annotation=given.type_hint)
    yield inspect.Parameter("output", kind, default=None)


def _class(base: type[Any], parameters: tuple[inspect.Parameter, ...], doc: str) -> type[Any]:
    """`base`, with a signature of the `parameters` of its call and their `doc`, which are otherwise in its blocks."""

    def call(self: Any, **arguments: Any) -> Any:
        return base.__call__(self, **arguments)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    call.__doc__ = doc  # it says which pictures are optional
    call.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
    return type(base.__name__, (base,), {"__call__": call})
