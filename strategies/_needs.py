"""What a technique needs of the machine, and the sentence for one that lacks it."""

from dataclasses import dataclass

from packaging.version import Version

from memplan.facts import Machine


@dataclass(frozen=True)
class Needs:
    """A package of at least `version`, a device of one of the `kinds`, and on CUDA at least this compute capability."""

    package: str
    version: str
    kinds: tuple[str, ...]
    capability: tuple[int, int] = (0, 0)

    def lacking(self, machine: Machine, name: str) -> str | None:
        """The sentence that says what `machine` lacks for the technique `name`, or None."""
        gpu, installed = machine.gpu, dict(machine.packages).get(self.package)
        if installed is None:
            return f'{name} needs {self.package}, which is not installed: pip install "{self.package}>={self.version}"'
        if Version(installed) < Version(self.version):
            return f"{name} needs {self.package} {self.version}, and {installed} is installed: upgrade it"
        if gpu is not None and gpu.kind not in self.kinds:
            return f"{name} does not run on {gpu.name}: it needs one of {', '.join(self.kinds)}, and this is {gpu.kind}"
        capable = gpu is None or gpu.kind != "cuda" or gpu.capability is None or gpu.capability >= self.capability
        if gpu is not None and not capable:
            wanted, here = (".".join(map(str, pair or ())) for pair in (self.capability, gpu.capability))
            return f"{name} needs compute capability {wanted}, and {gpu.name} has {here}"
        return None
