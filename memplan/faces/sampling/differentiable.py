"""Calls of a pipeline that keep gradients through the whole solve."""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from memplan.errors import BadInput
from memplan.faces.oom.classes import calls_of
from memplan.faces.sampling.recompute import Recompute, in_blocks
from memplan.faces.sampling.refusals import (
    BLOCK,
    check_call,
    check_options,
    check_parts,
    check_pipeline,
    left_torch,
    without_no_grad,
)
from memplan.faces.sampling.solve import Solve, denoises
from memplan.strategy import Undo


@contextmanager
def differentiable(
    pipe: Any, method: str = "__call__", *, checkpoint: str | None = None, last: int | None = None
) -> Generator[None]:
    """Calls of `pipe` inside keep gradients through the whole solve; `output_type` is "latent" or "pt".

    Each forward of a denoiser keeps what its backward needs, so many steps take as much memory as so many forwards.
    With checkpoint="step" a forward keeps what it was given and is made again in backward(); with "block" each of its
    blocks does. Call backward() inside then. With `last` only so many of the last steps keep gradients, and what comes
    before the first step, as prompts do.

    Modes and `requires_grad` of modules stay as they are, whatever a pipeline does in its call, and are as before at
    the end, also after an error. Step caches are off inside, and prompts are encoded anew. A module that samples by a
    method of its own, as the CFM of F5-TTS does, is given with the name of that method.

    Raises BadInput for options and calls that cannot be, and Unsupported, before or at the end of a call, for pipelines
    whose code lets go of gradients on the way, and for components that are offloaded or cast layer by layer.
    """
    check_options(checkpoint, last)
    check_pipeline(pipe, method)
    parts = _parts(pipe)
    check_parts(parts, checkpoint)
    if last is not None and not hasattr(pipe, "scheduler"):
        raise BadInput(f"last counts the steps of a scheduler, and {type(pipe).__name__} has none")
    with ExitStack() as undo:
        undo.callback(_settings(pipe, parts))
        for part in parts.values():
            undo.callback(_uncached(part))
        recompute = Recompute() if checkpoint else None
        if recompute is not None:
            undo.callback(recompute.close)
            for name, part in parts.items() if checkpoint == BLOCK else ():
                if denoises(name, part):
                    undo.callback(in_blocks(name, part, recompute))
        calls = _Calls(pipe, parts, last, recompute if checkpoint != BLOCK else None)
        undo.enter_context(calls_of(type(pipe), calls.around, method))
        yield


class _Calls:
    """The calls of one pipeline."""

    def __init__(self, pipe: Any, parts: Mapping[str, Any], last: int | None, recompute: Recompute | None) -> None:
        self.pipe, self.parts, self.last, self.recompute = pipe, parts, last, recompute

    def around(self, pipe: Any, original: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """A call of the class: of another pipeline as it is, of this one without torch.no_grad()."""
        if pipe is not self.pipe:
            return original(pipe, *args, **given)
        call, kind = without_no_grad(original), type(pipe).__name__
        check_call(kind, call, self.parts, inspect.signature(call).bind_partial(pipe, *args, **given).arguments)
        solve = Solve(pipe, self.parts, self.last, self.recompute)
        try:
            with solve.watching(), _modes_kept(pipe, self.parts):
                result = call(pipe, *args, **given)
        except RuntimeError as error:
            refusal = left_torch(kind, error)
            if refusal is None:
                raise
            raise refusal from error
        solve.check(result)
        return result


def _parts(pipe: Any) -> dict[str, Any]:
    """The modules of a pipeline by name, or those right inside of a module."""
    import torch

    found = pipe.named_children() if isinstance(pipe, torch.nn.Module) else pipe.components.items()
    return {name: part for name, part in found if isinstance(part, torch.nn.Module)}


def _modules(pipe: Any, parts: Mapping[str, Any]) -> Iterator[Any]:
    import torch

    for part in (pipe,) if isinstance(pipe, torch.nn.Module) else parts.values():
        yield from part.modules()


def _settings(pipe: Any, parts: Mapping[str, Any]) -> Undo:
    """Gives each module its present mode again, and each weight its `requires_grad`."""
    modes = [(module, module.training) for module in _modules(pipe, parts)]
    weights = [(weight, weight.requires_grad) for module, _ in modes for weight in module.parameters(recurse=False)]

    def restore() -> None:
        for module, mode in modes:
            module.training = mode
        for weight, asked in weights:
            weight.requires_grad_(asked)

    return restore


@contextmanager
def _modes_kept(pipe: Any, parts: Mapping[str, Any]) -> Generator[None]:
    """Calls of train() and eval() change nothing: some pipelines call eval() on what they use."""
    found = [vars(module) for module in _modules(pipe, parts)]
    own = [attributes.get("train") for attributes in found]
    for module in _modules(pipe, parts):
        vars(module)["train"] = _staying(module)
    try:
        yield
    finally:
        for attributes, before in zip(found, own, strict=True):
            del attributes["train"]
            attributes.update({} if before is None else {"train": before})


def _staying(module: Any) -> Callable[..., Any]:
    return lambda mode=True: module


def _uncached(part: Any) -> Undo:
    """Takes the step cache off that `part` has; the value puts it on again, where nobody has put on another."""
    config = getattr(part, "_cache_config", None)
    if config is not None:
        part.disable_cache()

    def restore() -> None:
        if config is not None and not part.is_cache_enabled:
            part.enable_cache(config)

    return restore
