"""Blocks of a live model that keep no activations for their backward, and compute them again there.

Which blocks there are is the library's own choice where it has one: what it hands to its checkpointing function in
diffusers, the layers that it counts in transformers. Of another model they are what its outermost lists of modules
hold.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from memplan.errors import BadInput
from memplan.strategy import Undo

from .way_back import attributes, switched

FLAG, FUNCTION = "gradient_checkpointing", "_gradient_checkpointing_func"
"""The attributes by which both libraries' modules are told."""
FEWEST = 2
"""Modules of a list that are blocks."""


Again = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What makes of a call one whose activations a backward computes again."""


def every_block(part: Any) -> Undo:
    """Has every block of `part` checkpointed; the value undoes it."""
    return checkpointed(part, 1)


def checkpointed(part: Any, interval: int, again: Again | None = None) -> Undo:
    """Has every `interval`-th block of `part` checkpointed, the first one among them; the value undoes it.

    Random numbers are drawn again as they were, so that gradients stay what they are without; `again` is what makes
    calls so, torch's own where nothing is given. Raises BadInput for a model without such blocks, and for one that is
    checkpointed already.
    """
    again = again or _again
    if interval < 1:
        raise BadInput(f"gradient_checkpointing: interval={interval} is no number of blocks: give 1 or more")
    told = [module for module in part.modules() if hasattr(module, FLAG)]
    if any(getattr(module, FLAG) for module in told):
        raise BadInput(f"{type(part).__name__} has gradient checkpointing already: turn that off first")
    if type(part).__module__.startswith("transformers.") and told:
        return switched(told, lambda: _in_transformers(part, interval, again))
    if getattr(part, "_supports_gradient_checkpointing", False) and told:
        return switched(told, lambda: part.enable_gradient_checkpointing(EveryNth(interval, again)))
    return _in_lists(part, interval, again)


class EveryNth:
    """What diffusers' models call their blocks through: it checkpoints every `interval`-th one of those it is given."""

    def __init__(self, interval: int, again: Again) -> None:
        """No block was seen; they are numbered as they come in the first forward."""
        self.interval, self.again = interval, again
        self.numbers: dict[int, int] = {}

    def __call__(self, block: Any, *args: Any, **kwargs: Any) -> Any:
        """What `block`, a module or a method of one, gives."""
        number = self.numbers.setdefault(id(getattr(block, "__self__", block)), len(self.numbers))
        return self.again(block)(*args, **kwargs) if number % self.interval == 0 else block(*args, **kwargs)


def _again(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, of which a backward computes the activations again."""
    from torch.utils.checkpoint import checkpoint

    def checkpointing(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(call, *args, use_reentrant=False, **kwargs)

    return checkpointing


def _in_transformers(part: Any, interval: int, again: Again) -> None:
    def through(call: Callable[..., Any], *args: Any) -> Any:
        return again(call)(*args)

    part._set_gradient_checkpointing(gradient_checkpointing_func=through, every_n_layers=interval)


def _in_lists(part: Any, interval: int, again: Again) -> Undo:
    """Has the forward of every `interval`-th block in the outermost lists of `part` checkpointed."""
    blocks = list(_listed(part))
    if len(blocks) < FEWEST:
        raise BadInput(f"{type(part).__name__} has no list of blocks (ModuleList), of which some could be checkpointed")
    undos = [_hung(block, again) for block in blocks[::interval]]

    def undo() -> None:
        for each in undos:
            each()

    return undo


def _listed(part: Any) -> Iterator[Any]:
    """The modules in the outermost lists of at least two that are inside `part`, in order."""
    from torch.nn import ModuleList

    for child in part.children():
        if isinstance(child, ModuleList) and len(child) >= FEWEST:
            yield from child
        else:
            yield from _listed(child)


def _hung(block: Any, again: Again) -> Undo:
    """Has `block` called through a checkpoint where gradients are wanted."""
    import torch

    undo, forward = attributes(block, "forward"), block.forward
    checkpointing = again(forward)

    @wraps(forward)
    def called(*args: Any, **kwargs: Any) -> Any:
        return (checkpointing if torch.is_grad_enabled() else forward)(*args, **kwargs)

    block.forward = called
    return undo
