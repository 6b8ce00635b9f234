"""Limits as people type them."""

import json

import pytest

from memplan import Target
from memplan.errors import BadInput
from memplan.faces import api
from memplan.faces.limits import EXAMPLE, read_limits
from memplan.faces.report import hardware
from memplan.faces.report import json as report
from memplan.facts import GIB, MIB, Limits


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", Limits()),
        (EXAMPLE, Limits(10 * GIB, 24 * GIB, 30, "near-lossless")),
        ("vram=7.5", Limits(vram=int(7.5 * GIB))),
        ("ram=800 MiB,seconds=2min", Limits(ram=800 * MIB, seconds=120)),
        ("vram=16gb, loss=exact", Limits(vram=16 * 10**9, loss="exact")),
    ],
)
def test_what_is_typed_is_read(text: str, limits: Limits) -> None:
    assert read_limits(text) == limits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("disk=4", "the limit 'disk=4' is none of vram, ram, seconds, loss"),
        ("vram", "the limit 'vram' is none of"),
        ("vram=ten", "vram=ten is no number with a unit: write vram=10GiB or 800MiB"),
        ("seconds=3h", "seconds=3h is no number with a unit: write seconds=30 or 2min"),
        ("ram=0", "ram=0 leaves nothing"),
        ("ram=inf", "ram=inf is no number"),
        ("loss=little", "use one of exact, near-lossless, slight, visible"),
        ("vram=4, vram=5", "vram is given twice"),
    ],
)
def test_what_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read_limits(text)


def test_a_machine_is_as_large_as_is_allowed() -> None:
    here = api.machine(Target(vram=24, ram=64, limit="vram=10GiB, ram=100GiB, seconds=30, loss=slight"))
    assert (here.vram, here.ram) == (10 * GIB, 64 * GIB)
    lines = " ".join(" ".join(hardware.machine(here)).split())
    assert "at most 10.00 GiB of device memory, 100.00 GiB of host memory, 30.0 s per call" in lines
    assert "a loss that is slight" in lines
    shown = json.loads(report.probe(here, None))["machine"]["limits"]
    assert shown == {"vram": 10 * GIB, "ram": 100 * GIB, "seconds": 30, "loss": "slight"}
