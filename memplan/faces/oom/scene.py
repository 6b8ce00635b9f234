"""What was going on when an error was raised: the pipeline, its call, and how far it had come.

A scene refers to live objects; whoever makes one lets it go again.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from memplan.faces.oom.frames import Frame, alive, frames, is_module, is_pipeline
from memplan.faces.oom.where import place
from memplan.oom.place import DENOISING, Place

CALL = "__call__"
ORIGINAL = "decorate_context"
"""torch's wrapper around a pipeline's call: it has the arguments as they were given."""
LOADERS = ("from_pretrained", "from_single_file")
PLACE = "_memplan_place"
"""The attribute by which an error keeps its place when the variables of its frames are let go of."""
NOT_OF_A_PLAN = ("self", "generator", "state", "output")
"""Arguments that say nothing of memory, and must not be used up."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The pipelines alive, the one at work first; the arguments of its call, and the place.

    `called` is whether the arguments are those of a call that was made. `source` is what was being loaded, "" where
    nothing was, and `dtype` the one it was asked in.
    """

    pipes: tuple[Any, ...] = ()
    call: dict[str, Any] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    called: bool = False
    source: str = ""
    dtype: str | None = None

    @property
    def pipe(self) -> Any:
        """The pipeline at work; None where none is alive."""
        return self.pipes[0] if self.pipes else None


def scene(error: BaseException, pipe: Any = None) -> Scene:
    """What the frames of `error` tell; `pipe` is the pipeline at work, where the caller knows it."""
    stack = frames(error)
    own = [pipe] if pipe is not None else []
    at = next((i for i in reversed(range(len(stack))) if _calls(stack[i])), None)
    calling = [] if at is None else [stack[at].owner]
    found = _unique([*own, *_in_hand(stack)]) or tuple(reversed(alive()))
    pipes = _unique([*own, *calling, *sorted(found, key=lambda one: not _runs(one, stack))])
    where = _kept(error, place(stack, at, pipes))
    if at is not None:
        return Scene(pipes, arguments(stack, at), where, called=True)
    source, dtype = _loaded(stack)
    return Scene(pipes, {}, where, source=source, dtype=dtype)


def _kept(error: BaseException, seen: Place) -> Place:
    """The place that was kept with an error before its frames were cleared; the step is still in those that ran on."""
    kept = vars(error).get(PLACE)
    if kept is None or not kept.phase:
        return seen
    return replace(kept, step=seen.step, steps=seen.steps) if kept.phase == DENOISING else kept


def _calls(frame: Frame) -> bool:
    return frame.function == CALL and is_pipeline(frame.owner)


def _in_hand(stack: Sequence[Frame]) -> Iterator[Any]:
    """Pipelines among the variables of the frames: first whose methods ran, from the innermost on."""
    yield from (frame.owner for frame in reversed(stack) if is_pipeline(frame.owner))
    for frame in reversed(stack):
        yield from (value for value in frame.variables.values() if is_pipeline(value))


def _runs(pipe: Any, stack: Sequence[Frame]) -> bool:
    """Whether a component of the pipeline ran, as where a program calls it by itself."""
    parts = {id(part) for part in getattr(pipe, "components", {}).values() if is_module(part)}
    return any(id(frame.owner) in parts for frame in stack)


def _unique(things: Sequence[Any]) -> tuple[Any, ...]:
    return tuple({id(thing): thing for thing in things}.values())


# ---- arguments -------------------------------------------------------------------------------------------------------
def arguments(stack: Sequence[Frame], at: int) -> dict[str, Any]:
    """The arguments of the call in frame `at` that a plan rests on, as they were given."""
    frame = stack[at]
    signature = inspect.signature(type(frame.owner).__call__)
    given = _given(stack[:at], signature)
    if given is None:  # no wrapper had them: those that the function has not changed for tensors since
        here = {name: frame.variables.get(name) for name in signature.parameters}
        kept = {name: value for name, value in here.items() if _plain(value) or name in _rest(signature)}
        given = _flat(kept, signature)
    return {name: value for name, value in given.items() if _counts(name, value)}


def given_to(pipe: Any, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `pipe` that a plan rests on. A call that it would refuse has none."""
    signature = inspect.signature(type(pipe).__call__)
    try:
        bound = signature.bind_partial(pipe, *args, **given)
    except TypeError:
        return {}
    return {name: value for name, value in _flat(bound.arguments, signature).items() if _counts(name, value)}


def _given(outer: Sequence[Frame], signature: inspect.Signature) -> dict[str, Any] | None:
    wrapper = outer[-1] if outer and outer[-1].function == ORIGINAL else None
    if wrapper is None or "kwargs" not in wrapper.variables:
        return None
    try:
        bound = signature.bind_partial(*wrapper.variables["args"], **wrapper.variables["kwargs"])
    except TypeError:
        return None
    return _flat(bound.arguments, signature)


def _rest(signature: inspect.Signature) -> list[str]:
    """The parameter that takes all other keywords, where there is one."""
    return [name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD]


def _flat(given: Mapping[str, Any], signature: inspect.Signature) -> dict[str, Any]:
    """The arguments with those other keywords among them."""
    rest = _rest(signature)
    named = {name: value for name, value in given.items() if name not in rest}
    return named | {key: value for name in rest for key, value in given.get(name, {}).items()}


def _counts(name: str, value: Any) -> bool:
    return name not in NOT_OF_A_PLAN and value is not None and not callable(value)


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, str | int | float | bool)


def _loaded(stack: Sequence[Frame]) -> tuple[str, str | None]:
    """What the outermost loader was given, as text, and the dtype that it was asked for."""
    for frame in stack:
        if frame.function in LOADERS:
            path = frame.variables.get("pretrained_model_name_or_path")
            options = frame.variables.get("kwargs", {})
            dtype = frame.variables.get("torch_dtype", options.get("torch_dtype", options.get("dtype")))
            known = str(dtype).removeprefix("torch.") if type(dtype).__name__ == "dtype" else None
            return str(path or ""), known
    return "", None
