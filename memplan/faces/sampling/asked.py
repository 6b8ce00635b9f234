"""Calls that keep gradients as people ask for them to be planned."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from memplan.errors import BadInput
from memplan.faces.sampling.refusals import BLOCK, STEP, TENSORS, check_call, check_options, check_pipeline
from memplan.facts import Differentiable

CONTEXT = "memplan.differentiable"


def checked(differentiable: Any, train: Any) -> Differentiable | None:
    """What `differentiable` asks for; None for a call without. Raises BadInput for what cannot be asked for."""
    if differentiable is None:
        return None
    if not isinstance(differentiable, Differentiable):
        raise BadInput(f"differentiable is {differentiable!r}: write differentiable=memplan.Differentiable()")
    if train is not None:
        raise BadInput("train=… plans a training step, and differentiable=… a call that keeps gradients: give one")
    check_options(None, differentiable.last)
    return differentiable


def in_tensors(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that ends with tensors: with latents, unless they say otherwise.

    Raises as the call itself would inside of `memplan.differentiable()`.
    """
    check_pipeline(pipe, "__call__")
    own = signature(type(pipe).__call__).parameters
    given = {**arguments}
    if "output_type" in own:
        given.setdefault("output_type", TENSORS[0])
    check_call(type(pipe).__name__, type(pipe).__call__, {}, given)
    return given


def written(differentiable: Differentiable, checkpoint: str | None) -> str:
    """The context in which the call is made, as code."""
    assert checkpoint in (None, STEP, BLOCK)
    given = {"checkpoint": checkpoint, "last": differentiable.last}
    options = "".join(f", {name}={value!r}".replace("'", '"') for name, value in given.items() if value is not None)
    return f"with {CONTEXT}(pipe{options}):"
