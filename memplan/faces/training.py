"""Training steps as people ask for them."""

from typing import Any

from memplan.errors import BadInput
from memplan.facts import AUTOCASTS, KINDS_OF_TRAINING, OPTIMIZERS, Purpose, Training
from memplan.registry import strategies, switches
from memplan.strategy import Switch


def checked(train: Any) -> Training | None:
    """What `train` asks for; None for a call. Raises BadInput for what is no Training, or one that cannot be."""
    if train is None:
        return None
    if not isinstance(train, Training):
        kind = train if train in KINDS_OF_TRAINING else KINDS_OF_TRAINING[0]
        raise BadInput(f'train is {train!r}: write train=memplan.Training("{kind}")')
    _one_of("kind of training", train.kind, KINDS_OF_TRAINING)
    _one_of("optimizer", train.optimizer, OPTIMIZERS)
    if train.autocast:
        _one_of("dtype of autocast", train.autocast, tuple(AUTOCASTS.values()))
    numbers = {"batch": 1 if train.batch is None else train.batch, "accumulate": train.accumulate, "rank": train.rank}
    for name, number in numbers.items():
        if number < 1:
            raise BadInput(f"{name}={number} trains nothing: give 1 or more")
    return train


def _one_of(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise BadInput(f"memplan knows no {what} {word!r}: use one of {', '.join(known)}")


def weighed(purpose: Purpose) -> dict[str, Switch]:
    """The ways to call components that are followed for a purpose, beside usual ones, where nobody names a plan."""
    return switches(kind.name for kind in strategies() if kind.purpose is purpose is not Purpose.CALLS)
