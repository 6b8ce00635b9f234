"""A twin is the user's pipeline with fake weights: the same classes and code, no bytes, no way back to the original."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from memplan.errors import Unsupported
from memplan.facts import COMPUTED
from memplan.probes.fakes import adapters, quantized
from memplan.probes.fakes.fake import fake_of, fresh_mode, make_castable


@dataclass(frozen=True, eq=False)
class Twin:
    """A pipeline whose modules hold fake tensors of `mode`; tokenizers, schedulers and processors are real.

    `source` says where it came from: "bundled …", "folder …", "file …", "hub …" or "live …". `call` holds arguments of
    the published example that the pipeline does not choose by itself; `assumptions` say what the source left open.
    `files` are the checkpoints of one file from which components are loaded, by component; `cast` are the components
    that are loaded in another dtype than they are stored in, or are copied or in memory for another reason. `variant`
    names the files of weights that were read, "" for those without a variant.
    """

    pipe: Any
    mode: FakeTensorMode
    name: str
    source: str
    call: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    cast: frozenset[str] = frozenset()
    variant: str = ""

    def components(self) -> dict[str, torch.nn.Module]:
        """The modules of the pipeline by name, in the pipeline's order."""
        return modules_of(self.pipe)


def modules_of(pipe: Any) -> dict[str, torch.nn.Module]:
    """The nn.Module components of a pipeline by name, in the pipeline's order."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def is_twin(pipe: Any) -> bool:
    """Whether it is the pipeline of a twin, whose weights have no bytes."""
    weights = (weight for module in modules_of(pipe).values() for weight in module.parameters())
    return isinstance(next(weights, None), FakeTensor)


def live_twin(pipe: Any, mode: FakeTensorMode | None = None) -> Twin:
    """The twin of a pipeline in memory, which is only read; its fakes are of `mode`, or of a fresh one.

    Hooks stay behind, so the twin runs as if nothing had been enabled; layerwise casting alone is put back, because it
    decides how the weights are stored. Raises Unsupported for weights in a format of which no fake can be made, for
    weights that are nowhere and for a component that cannot be copied.
    """
    mode = mode or fresh_mode()
    memo: dict[int, Any] = {}
    for name, module in modules_of(pipe).items():
        adapters.check(name, _unwrapped(module))
        memo.update(_fakes(name, _unwrapped(module), mode))
        memo.update(_left_behind(_unwrapped(module)))
    parts = {name: _copied(name, _unwrapped(part), memo) for name, part in pipe.components.items()}
    for module in parts.values():
        if isinstance(module, torch.nn.Module):
            _freed_from_hooks(module)
            quantized.settle(module)
    for name, module in modules_of(pipe).items():
        _casting_again(_unwrapped(module), parts[name])
    twin = copy.copy(pipe)
    for name in [*filter(lambda name: _wraps_own(pipe, name), vars(pipe))]:
        del twin.__dict__[name]
    twin.__dict__.update(parts, _all_hooks=[], hf_device_map=None, _progress_bar_config={"disable": True})
    class_name = type(pipe).__name__
    return Twin(twin, mode, class_name, f"live {class_name}")


def _wraps_own(pipe: Any, name: str) -> bool:
    """Whether the attribute stands before a method of `pipe`, which a copy of it would still call."""
    return getattr(getattr(vars(pipe)[name], "__wrapped__", None), "__self__", None) is pipe


def _unwrapped(part: Any) -> Any:
    """The module inside torch.compile's wrapper; anything else as it is."""
    return part._modules.get("_orig_mod", part) if isinstance(part, torch.nn.Module) else part


# ---- copying --------------------------------------------------------------------------------------------------------
def _fakes(name: str, module: torch.nn.Module, mode: FakeTensorMode) -> dict[int, Any]:
    """A fake for each parameter and buffer, by the id of the original: tied tensors stay tied."""
    fakes: dict[int, Any] = quantized.fakes(name, module, mode)
    away = _put_away(module)
    for path, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) in fakes:
            continue
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter, FakeTensor):
            raise Unsupported(
                f"{name}.{path} is a {type(tensor).__name__}: of weights that are already quantized, those of torchao, "
                f"bitsandbytes and GGUF can be planned. Load {name} without quantization."
            )
        if tensor.device.type == "meta" and id(tensor) not in away:
            raise Unsupported(f"{name}.{path} is on the meta device: {name} holds no weights. Load them first.")
        fakes[id(tensor)] = fake_of(tensor, mode)
    return fakes


def _put_away(module: torch.nn.Module) -> set[int]:
    """Ids of the weights that accelerate's sequential offload keeps elsewhere while they are not used."""
    found: set[int] = set()
    for part in module.modules():
        outer: Any = vars(part).get("_hf_hook")
        hook: Any
        for hook in getattr(outer, "hooks", (outer,)):
            if getattr(hook, "offload", False):
                recurse = hook.place_submodules
                found.update(id(t) for t in (*part.parameters(recurse), *part.buffers(recurse)))
    return found


class _ConstantsOnCpu(TorchFunctionMode):
    """Copies tensors that are neither parameters nor buffers to the CPU, without their history."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        memo[id(tensor)] = tensor.detach().cpu().clone()
        return memo[id(tensor)]


def _copied(name: str, part: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a component, with what `memo` holds in place of the originals."""
    try:
        with _ConstantsOnCpu():
            return copy.deepcopy(part, memo)
    except Exception as error:
        raise Unsupported(
            f"{name} ({type(part).__name__}) cannot be copied: {error}. memplan dry-runs a copy of the pipeline; "
            f"plan from its folder or from a bundled name instead."
        ) from error


# ---- hooks ----------------------------------------------------------------------------------------------------------
_LIBRARY_HOOKS = ("_hf_hook", "_diffusers_hook")
_LIBRARY_WRAPPERS = ("_old_forward", "forward", "to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa")
_OWN_HOOKS = ("torch.", "transformers.")  # weight_norm and hidden states are made by hooks
_TORCH_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _library_attributes(part: torch.nn.Module) -> Iterator[str]:
    """Attributes that accelerate's and diffusers' hooks have put on this module."""
    if any(name in part.__dict__ for name in _LIBRARY_HOOKS):
        yield from (name for name in (*_LIBRARY_HOOKS, *_LIBRARY_WRAPPERS) if name in part.__dict__)


def _user_hooks(part: torch.nn.Module) -> Iterator[tuple[dict[int, Any], int]]:
    """Tables and keys of torch hooks that somebody hung on the module and that are not part of what it computes."""
    for table in (part.__dict__[name] for name in _TORCH_HOOKS):
        yield from ((table, key) for key, hook in table.items() if not _home(hook).startswith(_OWN_HOOKS))


def _home(hook: Any) -> str:
    return str(getattr(hook, "__module__", ""))


def _left_behind(module: torch.nn.Module) -> dict[int, Any]:
    """Placeholders for what must not be copied: hooks hold the original's weights and the user's own objects."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo.update({id(part.__dict__[name]): ... for name in _library_attributes(part)})
        memo.update({id(table[key]): ... for table, key in _user_hooks(part)})
    return memo


def _freed_from_hooks(module: torch.nn.Module) -> None:
    """Remove the placeholders and what is left of hooks from a copy."""
    for part in module.modules():
        for name in list(_library_attributes(part)):
            del part.__dict__[name]
        for table, key in list(_user_hooks(part)):
            del table[key]
    make_castable(module)


def _casting_again(original: torch.nn.Module, copied: torch.nn.Module) -> None:
    """Put layerwise casting on the copy where the original has it: weights stored in 8 bits compute in more.

    It keeps peft from casting inputs to the dtype in which an adapter is stored; that comes along.
    """
    from diffusers.hooks import HookRegistry
    from diffusers.hooks.layerwise_casting import LayerwiseCastingHook, PeftInputAutocastDisableHook

    for theirs, ours in zip(original.modules(), copied.modules(), strict=True):
        for name, hook in getattr(theirs.__dict__.get("_diffusers_hook"), "hooks", {}).items():
            fresh: Any = None
            if isinstance(hook, LayerwiseCastingHook):
                fresh = LayerwiseCastingHook(hook.storage_dtype, hook.compute_dtype, non_blocking=False)
            elif isinstance(hook, PeftInputAutocastDisableHook):
                fresh = PeftInputAutocastDisableHook()
            elif name == COMPUTED:  # layers in several dtypes, with a hook that has no settings
                fresh = type(hook)()
            if fresh:
                HookRegistry.check_if_exists_or_initialize(ours).register_hook(fresh, name)
