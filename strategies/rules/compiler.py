"""What torch's compiler needs of a machine, and the sentence for one that lacks it."""

from memplan.facts import Machine

CAPABILITY = (7, 0)
"""The compute capability that triton needs (`GPUTooOldForTriton` of torch/_inductor/exc.py)."""
TRITONS = ("triton", "pytorch-triton", "triton-rocm", "pytorch-triton-rocm", "pytorch-triton-xpu", "triton-windows")
"""Names under which triton is published for the builds of torch."""
COMPILER = "cc"
"""How the machine names the C compiler among what is installed."""
DEVICES = "CUDA (compute capability 7.0), ROCm or XPU"
REHEARSED = "cpu"
"""The kind of a card in whose place a plan is rehearsed on the CPU, for which the compiler writes C++."""


def lacking(machine: Machine, name: str) -> str | None:
    """The sentence that says what `machine` lacks for the technique `name`, or None."""
    gpu = machine.gpu
    if gpu is None:
        return None
    if gpu.kind == REHEARSED:
        return _without_compiler(machine, name) if gpu.is_here else None
    if gpu.kind not in ("cuda", "rocm", "xpu"):
        return f"{name} does not run on {gpu.name}: it is priced for {DEVICES}, and this is {gpu.kind}"
    if gpu.kind == "cuda" and gpu.capability is not None and gpu.capability < CAPABILITY:
        return f"{name} needs compute capability 7.0, and {gpu.name} has {'.'.join(map(str, gpu.capability))}"
    return _uninstalled(machine, name) if gpu.is_here else None


def _uninstalled(machine: Machine, name: str) -> str | None:
    installed = dict(machine.packages)
    if not any(triton in installed for triton in TRITONS):
        wanted = "triton-windows" if machine.host.system == "Windows" else "triton"
        return f"{name} needs triton, which is not installed: pip install {wanted}"
    return _without_compiler(machine, name)


def _without_compiler(machine: Machine, name: str) -> str | None:
    if COMPILER not in dict(machine.packages):
        return f"{name} needs a C compiler, and none is found: install gcc or clang, or name one in CC"
    return None
