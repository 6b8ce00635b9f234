"""What figures leave out on machines unlike the one that the dry run imitates, in sentences."""

from collections.abc import Iterator

from memplan.facts.machine import ASSUMED_CAPABILITY, Gpu, Host, Machine
from memplan.facts.model import Model
from memplan.facts.trace import Trace

_STACKS = {"rocm": "ROCm", "xpu": "oneAPI", "mps": "Metal"}


def caveats(machine: Machine, model: Model, trace: Trace) -> Iterator[str]:
    """The sentences for this machine, model and dry run; none for a known CUDA device under Linux."""
    if machine.gpu is None:
        return
    yield from _capability(machine.gpu)
    yield from _kernels(machine.gpu, trace)
    yield from _dtypes(machine.gpu, model)
    yield from _files(model)
    yield from _quantized(model)
    if not machine.unified:
        yield from _driver(machine.host)


def _capability(gpu: Gpu) -> Iterator[str]:
    if gpu.kind == "cuda" and gpu.capability is None:
        least = ".".join(map(str, ASSUMED_CAPABILITY))
        yield f"compute capability {least}, which some techniques need: of the {gpu.name} only the memory is known"


def _kernels(gpu: Gpu, trace: Trace) -> Iterator[str]:
    if trace.device == "cuda" and gpu.kind in _STACKS:
        stack = _STACKS[gpu.kind]
        yield f"activations and workspaces are those of CUDA's kernels; {stack}'s were not followed"
        yield f"seconds assume the shares of a card's data that NVIDIA's reach; no call under {stack} was compared"


def _dtypes(gpu: Gpu, model: Model) -> Iterator[str]:
    for dtype in gpu.lacks:
        named = [c.name for c in model.components if dtype in c.bytes_by_dtype]
        if named:
            yield f"{gpu.name} cannot compute in {dtype}: load {', '.join(named)} in another dtype"


def _files(model: Model) -> Iterator[str]:
    """What is known of a bundled model's files are their sizes in the dtype of its example."""
    if model.source.startswith("bundled"):
        yield "published files hold the dtypes that are loaded; what they hold in another one is copied on the way"


def _quantized(model: Model) -> Iterator[str]:
    named = [part.name for part in model.components if any(w.dtype == "uint8" and not w.buffer for w in part.weights)]
    if named:
        yield f"{', '.join(named)}: stored quantized already, and what that lost before is in no figure of loss"


def _driver(host: Host) -> Iterator[str]:
    """On Windows the driver moves what does not fit into host memory instead of failing, many times slower."""
    if host.system in ("Windows", "WSL"):
        yield "shared GPU memory is not counted: what the driver would move there does not fit"
    if host.system == "WSL" and host.pinnable is not None:
        yield "WSL limits pinned memory without telling to how much; the least that was reported is counted"
