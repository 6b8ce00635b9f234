"""The groups read back from diffusers: complete, in its sizes, and with a sentence where they would break."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks import group_offloading as library
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.facts import GIB, Component
from memplan.probes.fakes.bare import bare
from memplan.probes.pipeline import measure
from memplan.probes.pipeline.grouping import groupings
from tests.pipelines import FAMILIES, build
from tests.probes.full_size import full_size
from tests.probes.pipeline.test_pipeline import of

FLUX = {"size": 22.17, "unmatched": 0.12, "block": 0.633, "leaf": 0.106}
SDXL = {"size": 4.78, "unmatched": 0.78, "block": 2.25, "leaf": 0.055}
SD3_POSITIONS = 0.107
"""GiB of its position table, a buffer, which block level holds twice."""
SD3 = {"size": 3.88, "unmatched": 0.14 + SD3_POSITIONS, "block": 0.158, "leaf": 0.105}


@pytest.mark.parametrize(("name", "published"), [("flux", FLUX), ("sdxl", SDXL), ("sd3", SD3)])
def test_published_sizes_in_gib(name: str, published: dict[str, float]) -> None:
    found = of(full_size(name))
    figures = {"size": found.size, "unmatched": found.unmatched, "block": max(found.blocks), "leaf": found.leaf}
    assert {key: value / GIB for key, value in figures.items()} == pytest.approx(published, abs=0.005)


def test_blocks_per_group_double_up_to_the_longest_list() -> None:
    found = of(full_size("flux"))  # 19 double and 38 single blocks
    assert [g.blocks for g in found.groupings if g.level == "block_level"] == [1, 2, 4, 8, 16, 32]
    pairs = found.grouping("block_level", 2)
    assert pairs is not None
    first = next(g for g in pairs.groups if g.streamed)
    assert (first.onload, first.offload) == ("transformer_blocks.0", "transformer_blocks.1")


def components() -> list[Component]:
    """Every component of every small pipeline."""
    return [c for family in FAMILIES for c in measure(build(family)).components]


def test_every_weight_is_in_a_group_of_every_grouping() -> None:
    for component in components():
        for grouping in component.groupings:
            left = set(range(len(component.weights))) - {i for group in grouping.groups for i in group.weights}
            # Sequential offload leaves buffers on the device, of components whose root owns no parameter.
            kept = {i for i in left if component.weights[i].buffer and grouping.level == "sequential"}
            assert left == kept, (component.class_name, grouping.level)


def test_streamed_means_what_the_library_gives_a_stream() -> None:
    """The library, given a stream, hands it to the groups that are called streamed, and to no other."""
    module = build("flux").transformer
    index = {name: i for i, (name, _) in enumerate(module.named_parameters())}
    (by_block,) = (g for g in groupings(module, index) if (g.level, g.blocks) == ("block_level", 1))
    expected = {g.onload: g.streamed for g in by_block.groups}
    settings: dict[str, Any] = {
        "num_blocks_per_group": 1,
        "non_blocking": False,
        "record_stream": True,
        "low_cpu_mem_usage": True,
        "stream": object(),
    }
    cpu, level = torch.device("cpu"), library.GroupOffloadingType.BLOCK_LEVEL
    config = library.GroupOffloadingConfig(cpu, cpu, level, **settings)
    library._apply_group_offloading(module, config)
    hooked = {path: part._diffusers_hook for path, part in module.named_modules() if hasattr(part, "_diffusers_hook")}
    streams = {p: r.get_hook("group_offloading").group.stream is not None for p, r in hooked.items()}
    assert streams == expected


def test_groups_are_those_of_a_component_offloaded_for_real() -> None:
    pipe = build("sdxl")
    found = measure(pipe).component("unet").grouping("block_level", 1)
    assert found is not None
    pipe.unet.enable_group_offload("cpu", offload_type="block_level", num_blocks_per_group=1)
    hooked = [path for path, part in pipe.unet.named_modules() if hasattr(part, "_diffusers_hook")]
    assert sorted(hooked) == sorted(g.onload for g in found.groups)


@pytest.mark.parametrize("kind", ["AutoencoderKLFlux2", "AutoencoderDC", "AutoencoderKLMochi", "AutoencoderKLLTXVideo"])
def test_vaes_whose_forward_is_never_called_lack_block_level(kind: str) -> None:
    with FakeTensorMode():
        found = of(getattr(diffusers, kind)())
    assert "decode()" in (found.lack("block_level") or "")
    assert found.lack("leaf_level") is None


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderKLWan"])
def test_vaes_with_block_modules_have_block_level(kind: str) -> None:
    with FakeTensorMode():
        found = of(getattr(diffusers, kind)())
    assert found.lack("block_level") is None
    assert found.blocks


def test_text_encoders_lack_block_level_unless_their_blocks_are_at_the_top() -> None:
    model = measure(build("flux"))
    for name in ("text_encoder", "text_encoder_2"):
        assert "no list of blocks" in (model.component(name).lack("block_level") or "")
        assert model.component(name).lack("leaf_level") is None


def test_a_class_that_refuses_groups_has_none() -> None:
    with FakeTensorMode():
        found = of(diffusers.VQModel())
    assert [grouping.level for grouping in found.groupings] == ["sequential"]
    assert "VQModel" in (found.lack("group_offload") or "")


def weight_normed() -> Any:
    """A module whose weight is computed from two others."""
    return torch.nn.Sequential(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 3)))


def attending() -> Any:
    """A module with an attention that reads its weights directly."""
    return torch.nn.Sequential(torch.nn.MultiheadAttention(8, 2))


@pytest.mark.parametrize("broken", [weight_normed, attending])
def test_modules_that_read_their_leaves_lack_leaf_level_where_they_are_called(broken: Any) -> None:
    found = of(broken())
    assert found.lack("leaf_level") is None
    assert found.lack("leaf_level:0")


def test_a_bare_copy_has_no_bytes_no_hooks_and_the_same_ties() -> None:
    encoder = build("flux").text_encoder_2
    encoder.forward = encoder.forward
    copy = bare(encoder)
    assert {p.device.type for p in copy.parameters()} == {"meta"}
    assert "forward" not in vars(copy)
    assert [n for n, _ in copy.named_parameters()] == [n for n, _ in encoder.named_parameters()]
    assert copy.config is encoder.config
