"""A store of encoded prompts in front of a pipeline's encode_prompt()."""

import hashlib
import inspect
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import update_wrapper
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from memplan.names import ENCODE_PROMPT

PLAIN = (str, int, float, bool, type(None))
GUIDED = "do_classifier_free_guidance"
"""A property of pipelines that some ask for while they encode."""


class Unkept(Exception):
    """An argument or a result of a kind that cannot be kept."""


class Prompts:
    """Stands before the `encode_prompt` of a pipeline, and keeps its last `most` results in host memory.

    It knows them by the arguments' values, the plain settings of the pipeline, and the state of its text encoders and
    tokenizers. Calls that record gradients pass through, and so do arguments of other kinds. A copy of the pipeline
    gets an empty one.
    """

    def __init__(self, pipe: Any, encode: Callable[..., Any], most: int) -> None:
        """Nothing is kept. `encode` is the method of `pipe`."""
        self.pipe, self.encode, self.most = pipe, encode, most
        self.signature = inspect.signature(encode)
        self.results: OrderedDict[Any, tuple[list[Any], Any]] = OrderedDict()
        update_wrapper(self, encode)

    def __deepcopy__(self, memo: Any) -> Any:
        pipe = memo.get(id(self.pipe), self.pipe)
        return Prompts(pipe, getattr(type(pipe), ENCODE_PROMPT).__get__(pipe), self.most)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `encode` returns, or returned for the same."""
        if torch.is_grad_enabled():
            return self.encode(*args, **kwargs)
        try:
            key = self._key(args, kwargs)
        except Unkept:
            return self.encode(*args, **kwargs)
        if key not in self.results:
            return self._keep(key, self.encode(*args, **kwargs))
        self.results.move_to_end(key)
        leaves, shape = self.results[key]
        return tree_unflatten([_copied(leaf) for leaf in leaves], shape)

    def _keep(self, key: Any, result: Any) -> Any:
        leaves, shape = tree_flatten(result)
        if all(type(leaf) is torch.Tensor or isinstance(leaf, PLAIN) for leaf in leaves):
            self.results[key] = ([_stored(leaf) for leaf in leaves], shape)
            while len(self.results) > self.most:
                self.results.popitem(last=False)
        return result

    def _key(self, args: Any, kwargs: Any) -> Any:
        pipe, bound = self.pipe, self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        settings = {name: value for name, value in vars(pipe).items() if isinstance(value, PLAIN) and name[0] != "_"}
        guided = getattr(pipe, GUIDED, None)
        place = str(getattr(pipe, "_execution_device", None))
        own = (_plain(bound.arguments), _plain(settings), guided if isinstance(guided, bool) else None, place)
        return own, tuple(_states(pipe))


# ---- what a result depends on ----------------------------------------------------------------------------------------
def _plain(value: Any) -> Any:
    """`value` as something that can be compared and hashed. Raises Unkept."""
    if isinstance(value, PLAIN) or type(value) in (torch.dtype, torch.device):
        return type(value).__name__, value
    if type(value) is torch.Tensor:
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.device), value.dtype, tuple(value.shape), hashlib.sha256(data).digest()
    if isinstance(value, dict):
        return tuple((_plain(key), _plain(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, *map(_plain, value)
    raise Unkept


def _states(pipe: Any) -> Iterator[Any]:
    """What tells two states of text encoders and tokenizers apart.

    Modules by identity, for a LoRA that comes or goes puts others in; of each weight how often it was written; the
    settings of peft's layers; of tokenizers how many words they know.
    """
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and _encodes(name, part):
            yield from ((weakref.ref(module), _adapted(module)) for module in part.modules())
            yield tuple(weight._version for weight in part.parameters())
        elif hasattr(part, "tokenize"):
            words: Any = part
            yield name, id(part), len(words)


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
