"""Keeps back what the libraries say while memplan uses them; what memplan and its user say goes through."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

CONFIGURED = ("torch", "diffusers", "transformers")
"""Libraries that set the level of their logger when they are imported."""
LIBRARIES = (*CONFIGURED, "accelerate", "torchao", "bitsandbytes")
LOUD = ContextVar("LOUD", default=False)
"""Whether the libraries may speak, as under --debug."""


@contextmanager
def libraries_quiet() -> Generator[None]:
    """Only errors of the libraries are logged, and only memplan's own warnings are shown; then all is as before."""
    if LOUD.get():
        yield
        return
    for name in CONFIGURED:
        import_module(name)
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(?!memplan\b)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
