"""What a technique needs of the machine, and the sentence for one that lacks it."""

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from memplan.facts import ASSUMED_CAPABILITY, Gpu, Machine

_STACKS = {"cuda": "CUDA", "rocm": "ROCm", "xpu": "XPU", "mps": "MPS", "cpu": "a CPU"}


@dataclass(frozen=True)
class Needs:
    """A package of at least `version`, "" for none, and a device of one of the `kinds`.

    On CUDA it must be of at least this compute `capability`, or of one of the `only` ones; on ROCm one of the `archs`.
    The last two are for those that name some.
    """

    package: str
    version: str
    kinds: tuple[str, ...]
    capability: tuple[int, int] = (0, 0)
    archs: tuple[str, ...] = ()
    only: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        """All of it, as people read it."""
        *others, last = (self._device(kind) for kind in self.kinds)
        devices = " or ".join(filter(None, (", ".join(others), last)))
        return f"{self.package} {self.version} or newer, and {devices}" if self.package else devices

    def lacking(self, machine: Machine, name: str) -> str | None:
        """The sentence that says what `machine` lacks for the technique `name`, or None."""
        return self.uninstalled(machine, name) or self.unsuited(machine, name)

    def uninstalled(self, machine: Machine, name: str) -> str | None:
        """The sentence about a package that this machine lacks, or has in an older version, or None."""
        installed = dict(machine.packages).get(self.package)
        if self.package and installed is None:
            return f'{name} needs {self.package}, which is not installed: pip install "{self.package}>={self.version}"'
        if installed and Version(installed) < Version(self.version):
            return f"{name} needs {self.package} {self.version}, and {installed} is installed: upgrade it"
        return None

    def unsuited(self, machine: Machine, name: str) -> str | None:
        """The sentence about a device that `name` does not run on, or None."""
        return next(self._unsuited(machine, name), None)

    def _unsuited(self, machine: Machine, name: str) -> Iterator[str]:
        gpu = machine.gpu
        if gpu is None:
            return
        if gpu.kind not in self.kinds:
            yield f"{name} does not run on {gpu.name}: it needs one of {', '.join(self.kinds)}, and this is {gpu.kind}"
        elif not self._suits(gpu):
            here = gpu.arch if gpu.kind == "rocm" else _dotted(gpu.capability or ASSUMED_CAPABILITY)
            yield f"{name} needs {self._least(gpu.kind)}, and {gpu.name} has {here}"

    def _suits(self, gpu: Gpu) -> bool:
        """Whether a device of a right kind is new enough; one of which that is not known is taken for it."""
        if gpu.kind == "rocm":
            return not (self.archs and gpu.arch) or gpu.arch in self.archs
        capability = gpu.capability or ASSUMED_CAPABILITY
        return gpu.kind != "cuda" or (capability in self.only if self.only else capability >= self.capability)

    def _device(self, kind: str) -> str:
        """A kind of device, and what of it is needed."""
        least = self._least(kind)
        return f"{_STACKS[kind]} ({least})" if least else _STACKS[kind]

    def _least(self, kind: str) -> str:
        if kind == "cuda" and self.only:
            return f"compute capability {' or '.join(map(_dotted, self.only))}"
        if kind == "cuda" and any(self.capability):
            return f"compute capability {_dotted(self.capability)}"
        return f"one of {', '.join(self.archs)}" if kind == "rocm" and self.archs else ""


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
