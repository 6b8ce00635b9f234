"""Which components a pipeline's own code lets compute in host memory."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.probes.trace.elsewhere import HOST, QUESTION, Places, asking
from tests.pipelines import build, inputs
from tests.some import some

CPU = torch.device("cpu")
"""The pipeline's device in a dry run."""


def encoded(places: Places, name: str, ids: torch.Tensor) -> torch.Tensor:
    """Component `name` is called with `ids`."""
    places.given(name, (ids,))
    result = torch.zeros(1, 4, 8)
    places.returned(name, result)
    return result


def followed(*asked: str) -> Places:
    places = Places(lambda: False)
    places.asked |= set(asked)
    return places


def ids(device: torch.device) -> torch.Tensor:
    return torch.tensor([[1, 2]]).to(device)


def moved_before_use(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.add(torch.cat([one.to(CPU), other.to(CPU)], -1), torch.zeros(1, 4, 16, device=CPU))


def moved_once_joined(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.add(torch.cat([one.repeat(1, 1, 1), other], -1).to(CPU), torch.zeros(1, 4, 16, device=CPU))


def never_moved(one: torch.Tensor, other: torch.Tensor) -> None:
    one.to(CPU)
    torch.add(one, torch.zeros(1, 4, 8, device=CPU))


@pytest.mark.parametrize(
    ("use", "groups"),
    [
        (moved_before_use, (("one",), ("two",))),
        (moved_once_joined, (("one", "two"),)),
        (never_moved, (("two",),)),
    ],
)
def test_what_is_returned_has_to_be_moved_before_it_meets_the_device(
    use: Callable[[torch.Tensor, torch.Tensor], None], groups: tuple[tuple[str, ...], ...]
) -> None:
    with followed("one", "two") as places:
        use(encoded(places, "one", ids(HOST)), encoded(places, "two", ids(HOST)))
    assert places.groups() == groups


def test_a_component_that_is_given_tensors_on_the_device_has_to_be_there() -> None:
    with followed("one") as places:
        encoded(places, "one", ids(CPU))
    assert places.groups() == ()


def test_one_that_takes_what_another_returned_goes_with_it() -> None:
    with followed("one") as places:
        encoded(places, "two", encoded(places, "one", ids(HOST)))
    assert places.groups() == ()  # the pipeline does not ask where the other computes
    places.asked.add("two")
    assert places.groups() == (("one", "two"),)


def test_numbers_and_what_happens_inside_a_component_do_not_matter() -> None:
    with followed("one") as places:
        torch.mul(encoded(places, "one", ids(HOST)), torch.tensor(2.0, device=CPU))
    assert places.groups() == (("one",),)
    places.inside = lambda: True
    with places:
        torch.add(encoded(places, "one", ids(HOST)), torch.zeros(1, 4, 8, device=CPU))
    assert places.groups() == (("one",),)


def test_the_pipelines_module_is_left_as_it_was() -> None:
    pipe = build("flux")
    scope = vars(__import__(type(pipe).__module__, fromlist=[""]))
    before = scope[QUESTION]
    with asking(pipe, {"text_encoder": pipe.text_encoder}, lambda: False) as places:
        assert scope[QUESTION](pipe.text_encoder) == HOST
        assert scope[QUESTION](nn.Identity()) == HOST
        assert places.asked == {"text_encoder"}
    assert scope[QUESTION] is before


ENCODERS = {
    "flux": (("text_encoder",), ("text_encoder_2",)),
    "sdxl": (("text_encoder", "text_encoder_2"),),
    "wan": (("text_encoder",),),
    "sd3": (),
}


@pytest.mark.parametrize("family", some(tuple(ENCODERS), "sdxl"))
def test_pipelines_as_they_are(family: str) -> None:
    trace = dry_run(open_pipeline(build(family)), inputs(family))
    assert tuple(group for group in trace.host_side if group != ("vae",)) == ENCODERS[family]
