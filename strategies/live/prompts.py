"""A store of encoded prompts in front of a pipeline's encode_prompt()."""

import hashlib
import inspect
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper
from threading import Lock
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from memplan.names import ENCODE_PROMPT

from .contents import sampled

PLAIN = (str, int, float, bool, type(None))
GUIDED = "do_classifier_free_guidance"
"""A property of pipelines that some ask for while they encode."""


class Unkept(Exception):
    """An argument or a result of a kind that cannot be kept."""


class Prompts:
    """Stands before the `encode_prompt` of a pipeline, and keeps its last `most` results in host memory.

    It knows them by the arguments' values, the settings of the pipeline, and the state of its tokenizers and of the
    components that encode. Calls that record gradients pass through, and so do arguments of other kinds, and weights
    that were made in inference mode, as what is written to those leaves no trace. Threads may share it. A copy of the
    pipeline gets an empty one.
    """

    def __init__(self, pipe: Any, encode: Callable[..., Any], most: int) -> None:
        """Nothing is kept. `encode` is the method of `pipe`."""
        self.pipe, self.encode, self.most = pipe, encode, most
        self.signature = inspect.signature(encode)
        self.results: OrderedDict[Any, tuple[list[Any], Any]] = OrderedDict()
        self.called: set[str] = set()
        self.lock = Lock()
        update_wrapper(self, encode)

    def __deepcopy__(self, memo: Any) -> Any:
        pipe = memo.get(id(self.pipe), self.pipe)
        return Prompts(pipe, getattr(type(pipe), ENCODE_PROMPT).__get__(pipe), self.most)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `encode` returns, or returned for the same."""
        key = self._key(args, kwargs)
        kept = self._kept(key)
        if kept is not None:
            leaves, shape = kept
            return tree_unflatten([_copied(leaf) for leaf in leaves], shape)
        known = len(self.called)
        with self._watched():
            result = self.encode(*args, **kwargs)
        if len(self.called) > known:
            key = self._key(args, kwargs)
        if key is not None:
            self._keep(key, result)
        return result

    def _kept(self, key: Any) -> tuple[list[Any], Any] | None:
        """What is kept under `key`, which is then the last to go."""
        with self.lock:
            kept = self.results.pop(key, None)
            if kept is not None:
                self.results[key] = kept
        return kept

    def _keep(self, key: Any, result: Any) -> None:
        leaves, shape = tree_flatten(result)
        if all(type(leaf) is torch.Tensor or isinstance(leaf, PLAIN) for leaf in leaves):
            stored = [_stored(leaf) for leaf in leaves]
            with self.lock:
                self.results[key] = (stored, shape)
                while len(self.results) > self.most:
                    self.results.popitem(last=False)

    def _key(self, args: Any, kwargs: Any) -> Any:
        """What tells this call from others, or None where nothing may be kept."""
        if torch.is_grad_enabled():
            return None
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            return _plain(bound.arguments), _settings(self.pipe), tuple(_states(self.pipe, self.called))
        except Unkept:
            return None

    @contextmanager
    def _watched(self) -> Generator[None]:
        """Components that are called meanwhile are those that encode, whatever their names."""
        modules = {name: part for name, part in self.pipe.components.items() if isinstance(part, torch.nn.Module)}
        handles = [
            part.register_forward_pre_hook(partial(self._met, name))
            for name, part in modules.items()
            if not _encodes(name, part) and name not in self.called
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _met(self, name: str, *_: Any) -> None:
        self.called.add(name)


# ---- what a result depends on ----------------------------------------------------------------------------------------
def _plain(value: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """`value` as something that can be compared and hashed; `other` makes that of other kinds, or Unkept is raised."""
    if isinstance(value, PLAIN) or type(value) in (torch.dtype, torch.device):
        return type(value).__name__, value
    if type(value) is torch.Tensor:
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.device), value.dtype, tuple(value.shape), hashlib.sha256(data).digest()
    if isinstance(value, dict):
        return tuple((_plain(key, other), _plain(one, other)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, *(_plain(one, other) for one in value)
    if other is None:
        raise Unkept
    return other(value)


def _same(thing: Any) -> Any:
    """A thing by its identity."""
    try:
        return id(thing), weakref.ref(thing)  # which tells it from a later one at the same address
    except TypeError:
        return id(thing)


def _settings(pipe: Any) -> Any:
    """The config of the pipeline, its own attributes, whether it guides, and where it computes."""
    parts = pipe.components
    own = {name: value for name, value in vars(pipe).items() if name[0] != "_" and name not in (*parts, ENCODE_PROMPT)}
    guided, place = getattr(pipe, GUIDED, None), str(getattr(pipe, "_execution_device", None))
    config = dict(getattr(pipe, "config", None) or {})
    return _plain(config, _same), _plain(own, _same), guided if isinstance(guided, bool) else None, place


def _states(pipe: Any, called: set[str]) -> Iterator[Any]:
    """What tells two states of tokenizers and of components that encode apart; `called` are such by name.

    Modules by identity, for a LoRA that comes or goes puts others in; the settings of peft's layers; of each weight how
    often it was written, and a sample of all, as peft fuses behind that count; of tokenizers their plain settings and
    how many words they know. Raises Unkept for weights without a count.
    """
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            if name in called or _encodes(name, part):
                yield name, *((weakref.ref(module), module.training, _adapted(module)) for module in part.modules())
                yield tuple(map(_writes, part.parameters())), sampled((*part.parameters(), *part.buffers()))
        elif part is not None and (hasattr(part, "tokenize") or _encodes("", part)):
            yield name, _same(part), len(part) if hasattr(part, "__len__") else None
            yield tuple((key, value) for key, value in vars(part).items() if isinstance(value, PLAIN))


def _writes(weight: torch.Tensor) -> int:
    if weight.is_inference():
        raise Unkept
    return weight._version


def _encodes(name: str, part: Any) -> bool:
    return "text" in name or type(part).__module__.startswith("transformers.")


def _adapted(module: Any) -> Any:
    """The adapters of one of peft's layers, with their scales; () for other modules."""
    if not hasattr(module, "active_adapters") or not hasattr(module, "scaling"):
        return ()
    scales = tuple(sorted(module.scaling.items()))
    return tuple(module.active_adapters), tuple(module.merged_adapters), module.disable_adapters, scales


# ---- what is kept ----------------------------------------------------------------------------------------------------
def _stored(leaf: Any) -> Any:
    """A copy in host memory, and where it came from."""
    return (leaf.to("cpu", copy=True), leaf.device) if isinstance(leaf, torch.Tensor) else leaf


def _copied(leaf: Any) -> Any:
    """A fresh copy where it came from: pipelines write into what they get."""
    return leaf[0].to(leaf[1], copy=True) if isinstance(leaf, tuple) else leaf
