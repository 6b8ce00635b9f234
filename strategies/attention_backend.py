"""A denoiser computes its attention with the kernel of another library, or with one of PyTorch's that is named."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import BACKEND, Facts
from memplan.run import Run
from memplan.strategy import Decision, Undo

from .live.dispatched import chosen, processors, ready
from .rules.needs import Needs
from .rules.other_way import OtherWay

_ON_CUDA, _SINCE = ("cuda",), (8, 0)
_HOPPER, _SAGE = ((9, 0),), ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
_FLASH, _XFORMERS, _SAGE_ATTENTION, _KERNELS = "2.6.3", "0.0.29", "2.1.1", "0.12"
BACKENDS: dict[str, Needs | None] = {
    "native": None,
    "_native_flash": Needs("", "", _ON_CUDA, _SINCE),
    "_native_efficient": Needs("", "", _ON_CUDA),
    "_native_cudnn": Needs("", "", _ON_CUDA, _SINCE),
    "_native_math": None,
    "flex": None,
    "flash": Needs("flash-attn", _FLASH, _ON_CUDA, _SINCE),
    "_flash_3": Needs("flash-attn-3", "3.0.0b1", _ON_CUDA, only=_HOPPER),
    "sage": Needs("sageattention", _SAGE_ATTENTION, _ON_CUDA, only=_SAGE),
    "xformers": Needs("xformers", _XFORMERS, _ON_CUDA),
    "flash_hub": Needs("kernels", _KERNELS, _ON_CUDA, _SINCE),
    "_flash_3_hub": Needs("kernels", _KERNELS, _ON_CUDA, only=_HOPPER),
    "sage_hub": Needs("kernels", _KERNELS, _ON_CUDA, only=_SAGE),
}
"""What the dry run can follow, as diffusers names it, and what each needs; None where it runs anywhere.

Versions are those that `_check_attention_backend_requirements` of diffusers 0.42's models/attention_dispatch.py asks
for; of flash-attn-3 any does there, and 3.0.0b1 is its first. Compute capabilities: of PyTorch's kernels those of
aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, of flash-attn and flash-attn-3 those of their README, of
SageAttention 2.2.0 the branches of `sageattn()` in sageattention/core.py.
"""
LISTED = ("_native_cudnn", "flash", "_flash_3", "sage", "xformers")
"""Those worth a thought: PyTorch chooses among its others by itself, and the rest is slower or downloaded."""


@dataclass(frozen=True)
class AttentionBackend(OtherWay):
    """A denoiser computes its attention with the kernel of another library, or with one of PyTorch's that is named.

    `backend` is one of diffusers' names. "native" leaves the choice to PyTorch, which falls back to all scores where
    none of its kernels runs, and the report says so. "_native_flash", "_native_efficient" and "_native_cudnn" never
    fall back: where the kernel would not run, the plan is refused. "flash" (flash-attn), "_flash_3", "xformers" and
    "sage" (SageAttention) must be installed; "flash_hub", "_flash_3_hub" and "sage_hub" are downloaded from the Hub
    when they are applied. It is for models whose attention goes through diffusers' dispatcher, as most newer
    transformers' does and U-Nets' does not.

    Memory is followed kernel by kernel. It hardly differs: all but "_native_math" and uncompiled "flex", which hold
    every score, hold the result and little more, "_native_cudnn" contiguous copies of its inputs, and "sage" rounded
    ones. The seconds are those of the same FLOPs and of the bytes that each moves: how much faster than PyTorch's a
    kernel is, is not known to memplan. So it is never picked by itself.

    Traps: "sage" rounds queries, keys and values to 8 bits; pictures of one seed change with all of them. Flash
    kernels and "sage" take no masks, and a model that passes one is refused. diffusers' own call changes what the
    whole process computes with; here it is the component alone. Beside compute_dtype too, a kernel that does not take
    the dtype that is loaded is refused: load the model in another one.
    """

    component: str
    backend: str = "native"

    name: ClassVar[str] = "attention_backend"
    opt_in: ClassVar[str] = "how much faster its kernel is, is not known, and pictures of one seed change with it"

    decision: ClassVar[Decision] = Decision.ATTENTION
    lacks: ClassVar[str] = "attention_backend"
    fails: ClassVar[str] = "fails with this attention"

    @property
    def way(self) -> str:
        """How the dry run names calls with this attention."""
        return f"{BACKEND}:{self.backend}"

    @classmethod
    def needed(cls) -> str:
        """What each backend needs that does not run anywhere."""
        return "; ".join(f"for {name} {needs}" for name, needs in BACKENDS.items() if needs)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """Of each denoiser that goes through the dispatcher those that PyTorch would not choose, and that may be there.

        In this machine that are those that are installed.
        """
        may = {"", *dict(facts.machine.packages)}
        called = {call.component for call in facts.trace.calls if call.method == "forward"}
        for part in facts.model.components:
            if part.name in called and part.library == "diffusers" and not part.lack(cls.lacks):
                there = ((name, BACKENDS[name]) for name in LISTED)
                yield from (cls(part.name, n) for n, needs in there if needs and (needs.package in may or _away(facts)))

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Callable[[Any], Undo]]:
        """One way: what computes with the backend that is asked for."""
        backend = settings.get("backend", cls.backend)
        return {f"{BACKEND}:{backend}": partial(chosen, backend=backend)} if backend in BACKENDS else {}

    def refuses(self, run: Run) -> str | None:
        """Refuses what is not followed, what this machine lacks, and models, masks or dtypes that it does not take."""
        if self.backend not in BACKENDS:
            return f"memplan does not follow {self.backend}: backend is one of {', '.join(BACKENDS)}"
        needs, lack = BACKENDS[self.backend], run.facts.model.component(self.component).lack(self.lacks)
        machine, name = run.facts.machine, f"{self.name} with {self.backend}"
        absent = needs.uninstalled(machine, name) if needs and not _away(run.facts) else None
        unsuited = needs.unsuited(machine, name) if needs else None
        return lack or absent or unsuited or super().refuses(run)

    def assumes(self, facts: Facts) -> tuple[str, ...]:
        """That another machine has the package, as its kernels are followed without."""
        needs = BACKENDS.get(self.backend)
        if needs is None or not needs.package or not _away(facts):
            return ()
        return (f"{self.component}: {self.backend} needs {needs.package} {needs.version} or newer there",)

    def idle(self, run: Run) -> str:
        """For calls that were not dry-run so."""
        return f"{self.name} needs a dry run with {self.backend}: price the plan that names it"

    def apply(self, pipe: Any, device: str) -> Undo:
        """Sets it for the component; the rest of the process keeps its own. Raises BadInput where it is absent."""
        part = getattr(pipe, self.component)
        if not processors(part):
            raise BadInput(f"{type(part).__name__} does not compute its attention through diffusers' dispatcher")
        try:
            ready(part, self.backend)
        except (RuntimeError, ValueError, ImportError, OSError) as error:
            raise BadInput(f"{self.component} cannot compute with {self.backend}: {error}") from error
        return chosen(part, self.backend)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line, and one that leaves the rest of the process as it is."""
        return (
            "from diffusers import attention_backend",
            "with attention_backend():",
            f'    pipe.{self.component}.set_attention_backend("{self.backend}")',
        )


def _away(facts: Facts) -> bool:
    """Whether the card is none of this machine: what is installed there is not known."""
    gpu = facts.machine.gpu
    return gpu is not None and not gpu.is_here
