import torch

from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.tracker import Tracker
from tests.probes.traced import Traced


def tensor(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


def test_what_an_op_makes_is_counted_until_it_dies() -> None:
    def work(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        z = y + 1
        del y
        return z + 1

    assert Traced(work, tensor(1000)).peak == 2 * 4000


def test_views_and_ops_in_place_make_nothing() -> None:
    assert Traced(lambda x: x.view(10, 100).transpose(0, 1).add_(1), tensor(1000)).peak == 0


def test_each_output_counts() -> None:
    assert Traced(lambda x: torch.max(x, dim=1), tensor(10, 100)).peak == 10 * (4 + 8)


def test_a_product_has_flops_and_traffic() -> None:
    traced = Traced(torch.mm, tensor(3, 5), tensor(5, 7))
    assert traced.flops == 2 * 3 * 5 * 7
    assert sum(s.traffic for s in traced.recording.segments()) == 4 * (3 * 5 + 5 * 7 + 3 * 7)


def test_the_op_at_the_peak_is_named() -> None:
    traced = Traced(lambda x: torch.mm(x, x).sum(), tensor(30, 30))
    highest = max(traced.recording.stretches, key=lambda s: s.peak)
    assert traced.ops[highest.op] == "aten.sum"  # its result comes on top of the product


def test_a_convolution_holds_its_workspace() -> None:
    image, filters = torch.zeros(1, 8, 32, 32, dtype=torch.bfloat16), torch.zeros(8, 8, 3, 3, dtype=torch.bfloat16)
    traced = Traced(lambda x, w: torch.nn.functional.conv2d(x, w, padding=1), image, filters)
    assert traced.peak > image.nbytes  # more than its result


def test_only_the_innermost_tracker_counts() -> None:
    ledger = Ledger(unit=1)
    x = tensor(1000)
    with Tracker(ledger, "cuda"):
        with Tracker(ledger, "cuda"):
            y = x + 1
        assert ledger.live == y.nbytes
        z = x + 1
    assert ledger.live == y.nbytes + z.nbytes
    assert sum(s.traffic for s in ledger.recording.segments()) == 4 * 4000


def test_a_constant_of_a_module_is_copied_to_a_gpu_and_used_in_place_on_a_cpu() -> None:
    constant = torch.zeros(1000, 2)

    def use(x: torch.Tensor) -> torch.Tensor:
        first, _ = constant.split(1, dim=1)
        return x + first[: len(x), 0]

    on_gpu, on_cpu = (Traced(use, torch.zeros(10), device=device).peak for device in ("cuda", "cpu"))
    assert on_gpu - on_cpu == constant.nbytes
