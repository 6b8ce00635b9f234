"""Two calls of a denoiser that follow each other with the same latents, made at once as one batch of both.

What the second will be given is known from the step before: the pipeline gives each pass the same embeddings at every
step. So the first step is made one by one, and each later one at once if all of that holds.
"""

from dataclasses import dataclass
from typing import Any

from memplan.errors import BadInput
from memplan.names import SHARED

from .batches import Given, is_tensor, samples, whole
from .front_door import Forward, Once
from .kept import alike, alive, gone, versions, weak


@dataclass
class Foreseen:
    """What the call after `first` should be given, which version of it was seen, and what comes of it."""

    first: Given
    given: Given
    seen: tuple[int, ...]
    result: Any

    def is_for(self, given: Given) -> bool:
        """Whether a call is the one that was foreseen."""
        return alike(given.values, self.given.values) and versions(self.given.values) == self.seen


class Pairs:
    """The calls of one `part`, whose own forward is `forward`; `name` is the technique, for what it says."""

    def __init__(self, name: str, part: Any, forward: Forward) -> None:
        """No call was made."""
        self.part, self.forward = part, forward
        self.name, self.say = name, Once()
        self.before: Given | None = None
        self.own: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.waiting: Foreseen | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call: the second half of what is there already, or both at once, or by itself."""
        given = Given.of(self.forward, args, kwargs)
        waiting, self.waiting = self.waiting, None
        if waiting and waiting.is_for(given):
            return waiting.result
        if waiting:
            self._alone("the second is not made, or is given what it was not given at the step before")
            self.own, self.before = None, waiting.first
        second = self._foreseen(given)
        if second is None:
            self._learn(given)
            return self.forward(*args, **kwargs)
        result, later = at_once(self.forward, given, second)
        self.waiting = Foreseen(given, second, versions(second.values), later)
        return result

    def _alone(self, why: str) -> None:
        self.say(f"{self.name}: {type(self.part).__name__} makes its passes one after the other: {why}")

    def _learn(self, given: Given) -> None:
        """Keeps `given` in mind; after two calls with the same latents, what each of them has of its own."""
        before, self.before = self.before, given
        if before is None or not alike(before.first, given.first):
            return
        try:
            check(before, given)
        except BadInput as difference:
            self._alone(str(difference))
            return
        names = [name for name in given.values if not alike(before.values[name], given.values[name])]
        first, second = ({name: weak(call.values[name]) for name in names} for call in (before, given))
        self.own, self.before = (first, second), None

    def _foreseen(self, given: Given) -> Given | None:
        """What the next call will be given, if `given` is the first of two as they were before; else None."""
        if self.own is None:
            return None
        first, second = ({name: alive(value) for name, value in call.items()} for call in self.own)
        expected = given.but(second)
        if gone((first, second)) or not all(alike(given.values.get(name), value) for name, value in first.items()):
            self.own = None
            return None
        try:
            if getattr(self.part, "is_cache_enabled", False):
                raise BadInput("its step cache tells them apart")
            check(given, expected)
        except BadInput as difference:
            self._alone(str(difference))
            return None
        return expected


def at_once(forward: Forward, first: Given, second: Given) -> tuple[Any, Any]:
    """What `forward` makes of both, as one batch."""
    size = first.size
    result = first.and_those_of(second).passed_to(forward)
    one, other = (samples(result, 2 * size, begin, begin + size, apart=first.apart) for begin in (0, size))
    return one, other


def check(first: Given, second: Given) -> None:
    """Raises BadInput where the two cannot be one batch."""
    if not first.size or first.size != second.size:
        raise BadInput(f"one is given {first.size} samples, and the other {second.size}")
    if first.values.keys() != second.values.keys():
        raise BadInput("they are not given the same arguments")
    for name, value in first.values.items():
        _check(name, value, second.values[name], first.size)


def _check(name: str, one: Any, other: Any, size: int) -> None:
    """Raises BadInput where these two values of argument `name` differ in what a batch has in common."""
    if is_tensor(one) and is_tensor(other):
        if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
            raise BadInput(f"{name} is {tuple(one.shape)} in one of them and {tuple(other.shape)} in the other")
        if one.dim() > 1 and len(one) == 1 and size > 1 and name not in SHARED:
            raise BadInput(f"{name} has one sample for all {size}")
        if whole(one, size) and name not in SHARED:
            return
    if type(one) is type(other) and isinstance(one, list | tuple | dict) and len(one) == len(other):
        for a, b in zip(_entries(one), _entries(other), strict=True):
            _check(name, a, b, size)
    elif not alike(one, other):
        raise BadInput(f"{name} is not the same in both")


def _entries(value: Any) -> Any:
    return [value[key] for key in sorted(value, key=str)] if isinstance(value, dict) else value
