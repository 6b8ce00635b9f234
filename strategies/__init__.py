"""One file per technique. Add yours here: one import, one word in the list."""

from memplan.strategy import Strategy

STRATEGIES: tuple[type[Strategy], ...] = ()
