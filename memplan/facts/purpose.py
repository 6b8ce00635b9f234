"""What a plan is for."""

from enum import StrEnum


class Purpose(StrEnum):
    """What a plan, or a technique, is for; the value is the word for all of its kind."""

    CALLS = "calls of a pipeline"
    TRAINING = "training"
    GRADIENTS = "calls that keep gradients"

    @property
    def one(self) -> str:
        """The word for one of them."""
        return _ONE[self]

    @property
    def asked(self) -> str:
        """How people say that they want it; "" for what they get anyway."""
        return _ASKED[self]


_ONE = {
    Purpose.CALLS: "a call",
    Purpose.TRAINING: "a training step",
    Purpose.GRADIENTS: "a call that keeps gradients",
}
_ASKED = {
    Purpose.CALLS: "",
    Purpose.TRAINING: "say which with train=… or --train",
    Purpose.GRADIENTS: "plan for it with differentiable=… or --differentiable, and make it as "
    "`with memplan.differentiable(pipe, checkpoint=…):`",
}
