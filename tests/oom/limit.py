"""Lets memory run out at a chosen op of a real pipeline on the CPU, and knows by itself where that was.

Torch's own global hooks tell which module runs, and wrapped methods which phase; memplan's reading of the frames has no
part in it.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memplan.facts import GIB, MIB
from tests.pipelines import build, inputs

CARD, ROOM = 8 * GIB, 604 * MIB
"""Of the pretended card, and of it what this process could have: a context, and about what a tiny pipeline needs."""
OTHER = 4711
"""The process that has the rest."""
BESIDE = 2 * MIB


def written(nbytes: int) -> str:
    """As PyTorch writes it (`format_size` of c10/core/CachingDeviceAllocator.h)."""
    for unit, scale in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if nbytes > scale:
            return f"{nbytes / scale:.2f} {unit}"
    return f"{nbytes} bytes"


def text(asked: int, live: int, free: int) -> str:
    """The error of PyTorch 2 for such figures."""
    in_use = ROOM - free
    return (
        f"CUDA out of memory. Tried to allocate {written(asked)}. GPU 0 has a total capacity of {written(CARD)} of "
        f"which {written(free)} is free. Process {OTHER} has {written(CARD - ROOM)} memory in use. Including "
        f"non-PyTorch memory, this process has {written(in_use)} memory in use. Of the allocated memory "
        f"{written(live)} is allocated by PyTorch, and {written(BESIDE)} is reserved by PyTorch but unallocated."
    )


@dataclass
class Where:
    """The phase, and in denoising the step from 1 on; the modules that run, the innermost last."""

    phase: str = "own code"
    step: int = 0
    modules: list[nn.Module] = field(default_factory=list)


@dataclass(frozen=True)
class Raised:
    """What was asked for when memory ran out, and the innermost module then."""

    asked: int
    free: int
    module: nn.Module | None


class Limit(TorchDispatchMode):
    """Raises at op number `op` of a phase, or of a denoising step of it; without an op it counts them."""

    def __init__(self, where: Where, phase: str = "", step: int = 0, op: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where, self.wanted, self.op = where, (phase, step), op
        self.ops: Counter[tuple[str, int]] = Counter()
        self.raised: Raised | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if made and made[0].numel():
            here = (self.where.phase, self.where.step)
            self.ops[here] += 1
            if here == self.wanted and self.ops[here] - 1 == self.op:
                self._run_out(sum(t.numel() * t.element_size() for t in made))
        return result

    def _run_out(self, asked: int) -> None:
        free = asked // 2
        self.raised = Raised(asked, free, self.where.modules[-1] if self.where.modules else None)
        raise torch.OutOfMemoryError(text(asked, 8 * MIB, free))


@contextmanager
def watched(pipe: Any) -> Generator[Where]:
    """Says where `pipe` is, as long as the context lasts."""
    where, parts = Where(), {id(part): name for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    denoisers = [p for n, p in pipe.components.items() if isinstance(p, nn.Module) and n in ("transformer", "unet")]

    def enters(module: nn.Module, _: Any) -> None:
        where.modules.append(module)
        name = parts.get(id(module), "")
        if any(module is part for part in denoisers):
            where.phase = "denoising"
        elif name.startswith("text_encoder"):
            where.phase = "text encoding"

    def leaves(module: nn.Module, *_: Any) -> None:
        where.modules.pop()
        if id(module) in parts:
            where.phase = "own code"

    with ExitStack() as stack:
        for handle in (register_module_forward_pre_hook(enters), register_module_forward_hook(leaves)):
            stack.callback(handle.remove)
        for owner, name, phase in (
            (pipe.vae, "decode", "decoding"),
            (getattr(pipe, "image_processor", None) or pipe.video_processor, _postprocess(pipe), "post-processing"),
        ):
            stack.enter_context(patch.object(owner, name, _in_phase(where, getattr(owner, name), phase)))
        stack.enter_context(patch.object(pipe.scheduler, "step", _counted(where, pipe.scheduler.step)))
        where.step = 1
        yield where


def _postprocess(pipe: Any) -> str:
    return "postprocess" if hasattr(pipe, "image_processor") else "postprocess_video"


def _in_phase(where: Where, original: Any, phase: str) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before, where.phase = where.phase, phase
        where.step = 0
        result = original(*args, **kwargs)
        where.phase = before
        return result

    return wrapped


def _counted(where: Where, original: Any) -> Any:
    def step(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        where.step += 1
        return result

    return step


def counted(pipe: Any, call: dict[str, Any]) -> Counter[tuple[str, int]]:
    """Ops of each phase and step of a call that is not the first: some models keep what they made in that one."""
    pipe(**call)
    with watched(pipe) as where, Limit(where) as limit:
        pipe(**call)
    return limit.ops


def run_out(pipe: Any, call: dict[str, Any], phase: str, step: int, op: int) -> tuple[BaseException, Raised]:
    """The error of one call whose memory runs out there, with its frames, and what the limit knows of it."""
    with watched(pipe) as where:
        limit = Limit(where, phase, step, op)
        try:
            with limit:
                pipe(**call)
        except torch.OutOfMemoryError as error:
            assert limit.raised is not None
            return error, limit.raised
    raise AssertionError(f"{phase} has no op {op}")


def failed_decode() -> tuple[Any, BaseException]:
    """A small pipeline, and the error of a decode of it."""
    pipe = build("flux")
    return pipe, run_out(pipe, inputs("flux"), "decoding", 0, 5)[0]
