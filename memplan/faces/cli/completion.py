"""Completes what is being typed, where a shell asks for it: argcomplete answers, when it is installed.

It is set up once, by `eval "$(register-python-argcomplete memplan)"` in bash and zsh, and in fish by
`register-python-argcomplete --shell fish memplan | source`. The shell then runs memplan itself, so that plug-ins and
new models are completed too.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from memplan.catalogue import models
from memplan.catalogue.gpus import cards
from memplan.registry import strategies

ASKED = "_ARGCOMPLETE"
"""The variable by which a shell asks."""


def complete(parser: argparse.ArgumentParser, verbs: Iterable[argparse.ArgumentParser]) -> None:
    """Answers a shell that asks for completions, and ends the program; does nothing where none asks."""
    if ASKED not in os.environ:
        return
    try:
        import argcomplete
    except ModuleNotFoundError:
        sys.exit(1)
    for action in (action for verb in verbs for action in verb._actions):
        completer = COMPLETERS.get(str(action.option_strings[0] if action.option_strings else action.metavar))
        if completer:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def _models(prefix: str, **_: Any) -> Iterable[str]:
    """Bundled models, else paths."""
    from argcomplete.completers import FilesCompleter

    found = [name for name in models.names() if name.startswith(prefix)]
    return found or FilesCompleter()(prefix)


def _cards(prefix: str, **_: Any) -> Iterator[str]:
    """Cards whose name has a word that begins so: "rtx 40" is completed as "NVIDIA GeForce RTX 40" is."""
    for name in (card.name for card in cards()):
        at = f" {name}".lower().find(f" {prefix}".lower())
        if at >= 0:
            yield prefix + name[at + len(prefix) :]


def _strategies(**_: Any) -> Iterator[str]:
    """The names of strategies."""
    yield from (cls.name for cls in strategies())


def _plans(prefix: str, **_: Any) -> Iterator[str]:
    """The same for the last technique of a plan."""
    last = prefix.rpartition("+")[2].lstrip()
    yield from (prefix[: len(prefix) - len(last)] + name for name in _strategies())


COMPLETERS: dict[str, Callable[..., Iterable[str]]] = {
    "MODEL": _models,
    "--model": _models,
    "--models": _models,
    "--gpu": _cards,
    "--gpus": _cards,
    "STRATEGY": _strategies,
    "--with": _plans,
    "--plan": _plans,
}
"""By option, or by what stands for an argument in the help; what has choices is completed without."""
