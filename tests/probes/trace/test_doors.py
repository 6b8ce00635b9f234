"""At a door, real tensors come out for real tensors that went in, and an accident leaves everything as it was."""

import copy
import gc
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensor
from torch.nn.modules import module as torch_module

from tests.pipelines import build
from tests.probes.rooms import flops, peak, room

WIDTH = 100


class Part(nn.Module):
    """A component whose decode() calls its own forward(), which calls its encode()."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return self.encode(x) * factor

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return self(self(x))


class Careless(Part):
    """Fails on more than three rows, when it has made some."""

    def forward(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        made = super().forward(x, factor)
        if len(x) > 3:
            raise ValueError("too many rows")
        return made


def rows(number: int) -> torch.Tensor:
    """So many rows."""
    return torch.zeros(number, WIDTH)


# ---- what comes out --------------------------------------------------------------------------------------------------
def test_zeros_of_the_right_shape_come_out() -> None:
    with room(Part()) as inside:
        out = inside.part(rows(2))
        assert not isinstance(out, FakeTensor)
        assert (out.shape, out.dtype, out.count_nonzero()) == ((2, WIDTH), torch.float32, 0)


@pytest.mark.parametrize("family", ["flux", "wan", "cogvideox"])
def test_a_distribution_comes_out_of_encode(family: str) -> None:
    vae, picture = build(family).vae, torch.zeros(1, 3, *([5] if family != "flux" else []), 32, 32)
    with torch.no_grad():
        real = vae.encode(picture).latent_dist
    with room(vae) as inside:
        for distribution in (inside.part.encode(picture).latent_dist for _ in range(2)):
            assert type(distribution) is type(real)
            for tensor in (distribution.sample(), distribution.mode(), distribution.mean):
                assert not isinstance(tensor, FakeTensor)
                assert (tensor.shape, tensor.dtype) == (real.mean.shape, real.mean.dtype)
    assert [v.method for v in inside.visits] == ["encode"] * 2


def test_what_shares_a_storage_is_counted_once() -> None:
    vae, picture = build("flux").vae, torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        distribution = vae.encode(picture).latent_dist
    tensors = [value for value in vars(distribution).values() if isinstance(value, torch.Tensor)]
    with room(vae) as inside:
        before = inside.ledger.live
        held = inside.part.encode(picture).latent_dist
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
        assert inside.ledger.live - before == sum(storages.values())
        assert held.mean.untyped_storage()._cdata == held.parameters.untyped_storage()._cdata


def test_what_comes_out_is_in_the_account_for_as_long_as_it_lives() -> None:
    with room(Part()) as inside:
        before = inside.ledger.live
        out = inside.part(rows(2))
        assert inside.ledger.live == before + out.nbytes
        del out
        assert inside.ledger.live == before


# ---- how often it is traced ------------------------------------------------------------------------------------------
def test_inner_calls_are_part_of_the_outer_one() -> None:
    with room(Part()) as inside:
        inside.part.decode(rows(2))
    (only,) = inside.visits
    assert only.method == "decode"
    assert flops(only.recording) == 2 * (2 * 2 * WIDTH * WIDTH)
    assert list(only.recording.modules) == ["layer"]


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ((rows(2),), (rows(2),), True),
        ((rows(2), 1.0), (rows(2), 2.0), True),
        ((rows(2),), (rows(3),), False),
        ((rows(2),), (rows(2).double(),), False),
        ((rows(2), 1), (rows(2), 2), False),
    ],
    ids=["equal", "another float", "another shape", "another dtype", "another number"],
)
def test_a_call_like_one_before_is_not_traced_again(first: Any, second: Any, alike: bool) -> None:
    with room(Part().double() if second[0].dtype == torch.float64 else Part()) as inside:
        inside.part.layer.forward = lambda x: x + 1
        for values in (first, second):
            inside.part(*values)
    one, other = inside.visits
    assert (one.recording is other.recording) == alike


def test_a_call_is_traced_again_where_its_code_looks_at_other_values() -> None:
    class Cutting(Part):
        def decode(self, x: torch.Tensor, length: torch.Tensor, step: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return self(x[: int(length)]) + step

    with room(Cutting()) as inside:
        lengths = [
            len(inside.part.decode(rows(4), torch.tensor(length), torch.tensor(step)))
            for length, step in ((2, 0), (2, 1), (3, 1), (2, 2))
        ]
    assert lengths == [2, 2, 3, 2]
    first, second, other, last = (visit.recording for visit in inside.visits)
    assert first is second is last is not other


def test_integers_whose_values_are_known_come_out_with_them() -> None:
    class Counting(Part):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(dim=1)

    with room(Counting()) as inside:
        assert inside.part.encode(torch.tensor([[True, False, True]])).tolist() == [2]
        assert inside.part.encode(torch.tensor([[True, False, False]])).tolist() == [1]


# ---- what is left behind ---------------------------------------------------------------------------------------------
def own(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Every attribute of a module and of those inside it."""
    return {path: dict(vars(part)) for path, part in module.named_modules()}


def global_hooks() -> tuple[int, int]:
    """How many hooks hang on every module there is."""
    return len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)


def test_doors_are_taken_away() -> None:
    with room(Careless()) as inside:
        assert {"forward", "encode", "decode"} <= vars(inside.part).keys()
        inside.part(rows(2))
    assert not {"forward", "encode", "decode"} & vars(inside.part).keys()
    assert global_hooks() == (0, 0)


def test_a_method_of_the_instance_itself_is_put_back() -> None:
    part = Part()
    patched = MethodType(lambda self, x: x + 1, part)
    part.__dict__["forward"] = patched
    with room(part) as inside:
        inside.part(rows(2))
    assert inside.part.forward.__func__ is patched.__func__
    assert peak(inside.visits[0].recording) == rows(2).nbytes


@pytest.mark.parametrize("method", ["forward", "decode"])
def test_an_accident_inside_leaves_nothing_behind(method: str) -> None:
    with room(Careless()) as inside:
        part, ledger = inside.part, inside.ledger
        part(rows(2))
        calm, live, recording = own(part), ledger.live, ledger.recording
        with pytest.raises(ValueError, match="too many rows"):
            getattr(part, method)(rows(4))
        gc.collect()
        assert own(part) == calm
        assert (ledger.live, ledger.depth, ledger.recording) == (live, 1, recording)
        assert global_hooks() == (0, 0)
        assert len(inside.visits) == 1
        part(rows(3))
        assert peak(inside.visits[-1].recording) == 2 * rows(3).nbytes
    assert "forward" not in vars(part)
    assert "forward" not in vars(part.layer)


def test_an_accident_outside_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="too many rows"), room(Careless()) as inside:
        inside.part.decode(rows(4))
    assert not {"forward", "encode", "decode"} & vars(inside.part).keys()
    assert inside.ledger.depth == 0
    assert torch._C._len_torch_dispatch_stack() == torch._C._len_torch_function_stack() == 0


def test_an_accident_in_a_vae_leaves_its_decoder_and_its_tiling() -> None:
    with room(build("wan").vae) as inside:
        vae = inside.part
        calm = {**own(vae), "": {}, "decoder": copy.copy(vars(vae.decoder))}
        with pytest.raises((RuntimeError, ValueError)):
            vae.decode(torch.zeros(1, 3, 1, 4, 4))
        assert "forward" not in vars(vae.decoder)
        assert own(vae).keys() == calm.keys()
        assert not vae.use_tiling
        assert vae.decode(torch.zeros(1, 16, 1, 4, 4)).sample.shape == (1, 3, 1, 32, 32)
