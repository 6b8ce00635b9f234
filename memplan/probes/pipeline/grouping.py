"""Reads the groups that diffusers and accelerate form, by letting them hook a bare copy of the module."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.utils import named_module_tensors
from diffusers import ModelMixin
from diffusers.hooks import apply_group_offloading
from torch.nn import ParameterDict, ParameterList

from memplan.facts import SEQUENTIAL, Group, Grouping
from memplan.probes.fakes import adapters
from memplan.probes.fakes.bare import bare

HOOK = "group_offloading"
LEAF = "leaf_level"
READ_BY_PIPELINES = {"latents_mean", "latents_std"}
"""Tensors at the root of a VAE that pipelines read where they are and copy to the device themselves."""
READS_ITS_LEAVES = {"Qwen3VLForConditionalGeneration": "its code reads the weights of leaves it does not call"}
"""transformers classes known to break when each leaf is offloaded by itself, and why."""


def groupings(module: torch.nn.Module, index: Mapping[str, int]) -> tuple[Grouping, ...]:
    """Module by module, at leaf level, and at block level for 1, 2, 4, 8 … blocks up to the longest list of blocks.

    Where block level would not work as it is, also for single blocks inside named modules. `index` numbers the weights
    by name; weights without a number are left out. Where diffusers refuses, the first alone.
    """
    sequential = Grouping(SEQUENTIAL, None, tuple(_one_by_one(module, index)))
    return sequential, *(_in_groups(module, index) if getattr(module, "_supports_group_offloading", True) else ())


def _one_by_one(module: torch.nn.Module, index: Mapping[str, int]) -> Iterator[Group]:
    """Of each module the weights that accelerate's hook moves, with the settings that diffusers gives it."""
    copy, meta = bare(module), torch.device("meta")
    numbers = _numbers(copy, index)
    names = {name: numbers.get(id(tensor)) for name, tensor in _named(copy)}
    cpu_offload(copy, meta, offload_buffers=len(copy._parameters) > 0, state_dict={})
    for path, part in copy.named_modules():
        moved: set[str] = set()
        for hook in getattr(getattr(part, "_hf_hook", None), "hooks", [getattr(part, "_hf_hook", None)]):
            if getattr(hook, "offload", False):
                own = named_module_tensors(part, hook.offload_buffers, hook.place_submodules, True)
                moved |= {f"{path}.{name}".removeprefix(".") for name, _ in own}
        weights = {number for number in map(names.get, moved) if number is not None}
        if weights:
            yield Group(path, path, tuple(sorted(weights)), streamed=False)


def _named(copy: torch.nn.Module) -> tuple[tuple[str, torch.Tensor], ...]:
    return (*copy.named_parameters(remove_duplicate=False), *copy.named_buffers(remove_duplicate=False))


def _numbers(copy: torch.nn.Module, index: Mapping[str, int]) -> dict[int, int]:
    return {id(tensor): index[name] for name, tensor in _named(copy) if name in index}


def _in_groups(module: torch.nn.Module, index: Mapping[str, int]) -> tuple[Grouping, ...]:
    found = [Grouping(LEAF, None, _groups(module, index, LEAF, None))]
    blocks, longest = 1, 1
    while blocks <= longest:
        groups = _groups(module, index, "block_level", blocks)
        found.append(Grouping("block_level", blocks, groups))
        if blocks == 1:
            longest = max(Counter(g.onload.rpartition(".")[0] for g in groups if g.streamed).values(), default=0)
        blocks *= 2
    return tuple(found) + _deeper(module, index, found[1])


def _deeper(module: torch.nn.Module, index: Mapping[str, int], plain: Grouping) -> tuple[Grouping, ...]:
    """Single blocks of lists inside named modules, where block level breaks or splits nothing without the names."""
    names = _deeper_names(module) if _block_level_lack(module, plain) else ()
    if not names:
        return ()
    groups = _groups(module, index, "block_level", 1, names)
    named = Grouping("block_level", 1, groups, "+".join(names))
    return () if _block_level_lack(module, named) else (named,)


def _deeper_names(module: torch.nn.Module) -> tuple[str, ...]:
    """The modules to name: all parts of a VAE, else those on the way to the largest list of blocks."""
    if hasattr(module, "decode"):
        return tuple(name for name, part in module.named_children() if any(True for _ in part.parameters()))
    lists = {path: part for path, part in module.named_modules() if type(part) is torch.nn.ModuleList}
    largest = max(lists, key=lambda path: sum(p.numel() for p in lists[path].parameters()), default="")
    return tuple(dict.fromkeys(largest.split(".")[:-1]))


def lacks(module: torch.nn.Module, found: tuple[Grouping, ...]) -> Iterator[tuple[str, str]]:
    """(technique, sentence) for each kind of group offload that the library refuses here or that would break.

    The technique is "group_offload", a level, or "level:path" for what breaks only where the module `path` is called.
    """
    kind = type(module).__name__
    one_by_one = _leaf_level_lack(module, found[0])
    if one_by_one:
        yield SEQUENTIAL, f"{kind}: {one_by_one}"
    for path, reason in _weights_read_directly(module):
        yield f"{LEAF}:{path}", f"{kind}: {reason}"
    if len(found) == 1:
        yield "group_offload", f"diffusers marks {kind} as unable to offload in groups"
        return
    by_level = {g.level: g for g in reversed(found) if not g.modules}
    block_level = _block_level_lack(module, by_level["block_level"])
    leaf_level = _leaf_level_lack(module, by_level[LEAF])
    if block_level:
        yield "block_level", f"{kind}: {block_level}"
    if leaf_level:
        yield LEAF, f"{kind}: {leaf_level}"


def _block_level_lack(module: torch.nn.Module, grouping: Grouping) -> str | None:
    entered_by_forward = any(not g.onload and g.weights for g in grouping.groups)
    if entered_by_forward and hasattr(module, "decode"):
        return "block-level groups come in with forward(), but pipelines call decode(); offload its leaves instead"
    if not any(g.streamed for g in grouping.groups):
        return "no list of blocks at its top, so block-level groups would keep all of it on the device"
    return None


def _leaf_level_lack(module: torch.nn.Module, grouping: Grouping) -> str | None:
    root = next((g for g in grouping.groups if not g.onload), None)
    owned = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
    if root and hasattr(module, "decode") and owned - READ_BY_PIPELINES:
        return f"{', '.join(sorted(owned))} come in with forward(), but pipelines call decode()"
    return READS_ITS_LEAVES.get(type(module).__name__)


def _weights_read_directly(module: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """Path of each module whose leaves would still be away when their weights are read, and how they are read."""
    for path, part in module.named_modules():
        if isinstance(part, torch.nn.MultiheadAttention):
            yield path, f"{path} is an nn.MultiheadAttention, which reads its output projection without calling it"
        if "weight_g" in part._parameters or torch.nn.utils.parametrize.is_parametrized(part):
            yield path, f"{path} computes its weight from other tensors before the hook brings them in"
        tables = (n for n, c in part.named_children() if isinstance(c, ParameterDict | ParameterList) and len(c))
        for name in islice(tables, 1):
            yield path, f"{path} reads the tensors of {name}, a table that no hook brings in as it is never called"
    for path, variant in adapters.variants(module):
        yield path, f"{path} has a {variant}, which reads weights of layers that it does not call"


def _groups(
    module: torch.nn.Module, index: Mapping[str, int], level: str, blocks: int | None, names: tuple[str, ...] = ()
) -> tuple[Group, ...]:
    copy = bare(module)
    settings: dict[str, Any] = {"offload_type": level, "num_blocks_per_group": blocks, "non_blocking": True}
    settings |= {"block_modules": list(names)} if names else {}
    devices = {"onload_device": torch.device("cpu"), "offload_device": torch.device("meta")}
    if isinstance(copy, ModelMixin):
        copy.enable_group_offload(**devices, **settings)
    else:
        apply_group_offloading(copy, **devices, **settings)
    return tuple(_read(copy, index))


def _read(copy: torch.nn.Module, index: Mapping[str, int]) -> Iterator[Group]:
    paths = {id(part): path for path, part in reversed(list(copy.named_modules()))}
    numbers = _numbers(copy, index)
    for group in _hooked(copy):
        owned = [t for part in group.modules for t in (*part.parameters(), *part.buffers())]
        # Module.to() gives a module new buffers, and the group goes on moving the old ones that it lists beside it.
        twice = [buffer for buffer in group.buffers if any(buffer is t for t in owned)]
        tensors = [*{id(t): t for t in (*group.parameters, *group.buffers, *owned)}.values(), *twice]
        # A leader without weights is not seen in a dry run; the first and last member that has some stand for it.
        members = [part for part in group.modules if any(True for _ in (*part.parameters(), *part.buffers()))]
        whole = group.onload_leader not in group.modules or not members
        yield Group(
            onload=paths[id(group.onload_leader if whole else members[0])],
            offload=paths[id(group.offload_leader if whole else members[-1])],
            weights=tuple(sorted(numbers[id(t)] for t in tensors if id(t) in numbers)),
            # Asked for non-blocking copies, the library still denies them to the groups it gives no stream.
            streamed=group.non_blocking,
        )


def _hooked(copy: torch.nn.Module) -> list[Any]:
    groups: dict[int, Any] = {}
    for part in copy.modules():
        registry: Any = getattr(part, "_diffusers_hook", None)
        hook = registry.get_hook(HOOK) if registry else None
        if hook is not None:
            groups.setdefault(id(hook.group), hook.group)
    return list(groups.values())
