"""Reads which modules a component's own compile_repeated_blocks() compiles, and what keeps a component from it."""

import torch


def regions(module: torch.nn.Module) -> tuple[str, ...]:
    """Paths of the modules whose class the library names as repeated; () where it names none, or has none of them.

    Source: `compile_repeated_blocks` of diffusers/models/modeling_utils.py.
    """
    named = getattr(module, "_repeated_blocks", None) or ()
    return tuple(path for path, part in module.named_modules() if type(part).__name__ in named)
