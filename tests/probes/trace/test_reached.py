"""Components that run without one of their doors are noticed, and those that do not run are not."""

from types import SimpleNamespace

import torch

from memplan.probes.trace.reached import running


def test_a_module_that_runs_outside_of_every_door_is_noticed() -> None:
    one, two = torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Linear(2, 2)
    doors = SimpleNamespace(inside=False)
    with running({"one": one, "two": two}, lambda: doors.inside) as found:
        one[0](torch.zeros(2))
        doors.inside = True
        two(torch.zeros(2))
    doors.inside = False
    two(torch.zeros(2))
    assert found == {"one"}
