"""Bounds on what a config may make, so that a wrong one takes neither the machine's memory nor the day."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from memplan.errors import BadInput

MOST_MODULES = 30_000
"""Modules of one component; the largest that are published have some ten thousand."""
LARGEST_CONSTANT = 1 << 29
"""Bytes of one tensor that is computed while a component is made: a table of positions, a schedule."""
_MAKERS = (torch.arange, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand, torch.randn, torch.zeros)
"""What writes to the memory it allocates; the memory of torch.empty, which parameters begin as, is never touched."""


@contextmanager
def bounded() -> Generator[None]:
    """Raise BadInput within the context when a component would have too many modules or too large a constant."""
    registered = 0

    def count(module: Any, name: str, submodule: Any) -> None:
        nonlocal registered
        registered += 1
        if registered > MOST_MODULES:
            raise BadInput(f"its config asks for more than {MOST_MODULES} modules")

    handle = register_module_module_registration_hook(count)
    try:
        with _SmallConstants():
            yield
    finally:
        handle.remove()


class _SmallConstants(TorchFunctionMode):
    """Refuses to make tensors larger than the bound."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _MAKERS and "out" not in given:
            planned = func(*args, **{k: v for k, v in given.items() if k != "generator"} | {"device": "meta"})
            if planned.nbytes > LARGEST_CONSTANT:
                raise BadInput(f"its config asks for a constant of {planned.nbytes} bytes")
        return func(*args, **given)
