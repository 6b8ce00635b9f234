"""The parser of the command line: its help breaks no name, and what is mistyped is told what it is like."""

import argparse
import re
import sys
from textwrap import wrap
from typing import NoReturn

from memplan.errors import did_you_mean
from memplan.faces.cli.terminal import say

_NO_CHOICE = re.compile(r"argument VERB: invalid choice: '([^']*)'")
_UNKNOWN = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)


class Help(argparse.RawDescriptionHelpFormatter):
    """Wraps the help of options between words, never inside a name with hyphens.

    The value of an option with two names stands once, after both, and the help of verbs beside them: as Python 3.13
    has it.
    """

    def add_argument(self, action: argparse.Action) -> None:
        """Measures the names of verbs with their indent, too."""
        super().add_argument(action)
        for verb in self._iter_indented_subactions(action):
            end = self._current_indent + len(self._format_action_invocation(verb))
            self._action_max_length = max(self._action_max_length, end)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """Knows the words that could have been meant: the verbs, and after one of them its options."""

    verbs: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        """Ends the program with the message, and what could have been meant."""
        verb, unknown = _NO_CHOICE.match(message), _UNKNOWN.match(message)
        meant = ""
        if verb and self.verbs:
            message = f"there is no verb {verb[1]!r}; there are {', '.join(self.verbs)}"
            meant = did_you_mean(verb[1], self.verbs)
        elif unknown:
            word = unknown[1].split()[0].partition("=")[0]
            meant = did_you_mean(word, self._option_string_actions)
        self.print_usage(sys.stderr)
        say(f"error: {message}.{meant}" if meant else f"error: {message}", self.prog)
        self.exit(2)
