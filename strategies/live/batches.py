"""The samples of a batch among the arguments of a denoiser, and among what it returns."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memplan.names import SHARED


@dataclass(frozen=True)
class Given:
    """What one call is given, by the names of its arguments. `size` is the number of samples, 0 where none is seen."""

    signature: inspect.Signature
    values: dict[str, Any]

    @classmethod
    def of(cls, forward: Callable[..., Any], args: Any, kwargs: Any) -> "Given":
        """The arguments of a call of `forward`, in the order in which it names them; what they are in is copied."""
        signature = inspect.signature(forward)
        bound = signature.bind(*args, **kwargs).arguments
        return cls(signature, {name: changed(value, lambda leaf: leaf) for name, value in bound.items()})

    @property
    def first(self) -> Any:
        """The first argument: what is denoised."""
        return next(iter(self.values.values()), None)

    @property
    def size(self) -> int:
        """As many as what is denoised has: a tensor in its first dimension, a list one by one."""
        first = self.first
        if is_tensor(first):
            return len(first) if first.dim() else 0
        return len(first) if isinstance(first, list) else 0

    @property
    def apart(self) -> bool:
        """Whether samples come one by one in lists."""
        return isinstance(self.first, list)

    def samples(self, begin: int, end: int) -> "Given":
        """The same call for the samples from `begin` to `end`, in views."""
        cut = {
            name: value if name in SHARED else samples(value, self.size, begin, end, apart=self.apart)
            for name, value in self.values.items()
        }
        return replace(self, values=cut)

    def and_those_of(self, other: "Given") -> "Given":
        """One call for the samples of both; what they have in common is taken from this one."""
        both = {
            name: value if name in SHARED else together(value, other.values[name], self.size, apart=self.apart)
            for name, value in self.values.items()
        }
        return replace(self, values=both)

    def but(self, values: Mapping[str, Any]) -> "Given":
        """The same call with these arguments."""
        return replace(self, values={**self.values, **values})

    def passed_to(self, forward: Callable[..., Any]) -> Any:
        """What `forward` makes of them."""
        bound = inspect.BoundArguments(self.signature, self.values)
        return forward(*bound.args, **bound.kwargs)


def samples(value: Any, size: int, begin: int, end: int, *, apart: bool) -> Any:
    """Of `value`, which holds `size` samples wherever it holds any, those from `begin` to `end`.

    A list is one of samples where it is as long and, unless samples come `apart`, holds no tensor of all of them.
    """
    if is_tensor(value):
        return value[begin:end] if whole(value, size) else value
    if _listed(value, size, apart):
        return value[begin:end]
    if type(value) in (list, tuple):
        return type(value)(samples(v, size, begin, end, apart=apart) for v in value)
    if isinstance(value, dict):
        return _like(value, {k: samples(v, size, begin, end, apart=apart) for k, v in value.items()})
    return value


def together(one: Any, other: Any, size: int, *, apart: bool) -> Any:
    """`samples` undone: the samples of both, and `one` wherever there are none."""
    if whole(one, size) and whole(other, size):
        import torch

        return torch.cat((one, other))
    if _listed(one, size, apart):
        return [*one, *other]
    if type(one) in (list, tuple):
        return type(one)(together(a, b, size, apart=apart) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return _like(one, {key: together(one[key], other[key], size, apart=apart) for key in one})
    return one


def joined(results: Sequence[Any]) -> Any:
    """Results of one shape for some samples each, as one for all of them."""
    first = results[0]
    if is_tensor(first):
        import torch

        return torch.cat(list(results)) if first.dim() else first
    if isinstance(first, list):
        return [sample for result in results for sample in result]
    if isinstance(first, tuple):
        return tuple(map(joined, zip(*results, strict=True)))
    if isinstance(first, dict):
        return _like(first, {key: joined([result[key] for result in results]) for key in first})
    return first


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with each leaf changed, in containers of its own."""
    if type(value) in (list, tuple):
        return type(value)(changed(entry, change) for entry in value)
    if type(value) is dict:
        return {key: changed(entry, change) for key, entry in value.items()}
    return change(value)


def leaves(value: Any) -> Iterator[Any]:
    """What `value` contains."""
    if type(value) in (list, tuple, dict):
        for entry in value.values() if type(value) is dict else value:
            yield from leaves(entry)
    else:
        yield value


def is_tensor(value: Any) -> bool:
    """Whether `value` is one."""
    import torch

    return isinstance(value, torch.Tensor)


def whole(value: Any, size: int) -> bool:
    """Whether `value` is a tensor of `size` samples."""
    return is_tensor(value) and value.dim() > 0 and len(value) == size


def _listed(value: Any, size: int, apart: bool) -> bool:
    return type(value) is list and len(value) == size and (apart or not any(whole(entry, size) for entry in value))


def _like(table: dict[Any, Any], values: dict[Any, Any]) -> Any:
    """`values` in a dict as `table` is one: diffusers returns some with a class of their own."""
    return values if type(table) is dict else type(table)(**values)
