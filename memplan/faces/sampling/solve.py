"""One call of a pipeline that keeps gradients: which steps do, and whether they come through."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

from memplan.errors import BadInput, Unsupported
from memplan.faces.oom.classes import calls_of
from memplan.faces.oom.doors import FORWARD, Doors
from memplan.faces.sampling.reach import Nodes, nodes, reached, tensors
from memplan.faces.sampling.recompute import Recompute
from memplan.facts import DENOISING

CACHE = "cache"
"""By which the backbones of F5-TTS are told to keep what they make of the text from one forward to the next."""


class Solve:
    """The forwards of the denoisers among `parts`, made again by `recompute` where there is one, and the steps.

    With `last`, gradients are kept for what comes before the first forward, as prompts do, and again from the last so
    many steps on. What lies between is computed without, so that the first of those steps starts from plain numbers.
    """

    def __init__(self, pipe: Any, parts: Mapping[str, Any], last: int | None, recompute: Recompute | None) -> None:
        """Nothing was computed."""
        self.pipe, self.last, self.recompute = pipe, last, recompute
        self.doors = Doors(SimpleNamespace(components=parts), self.through)
        self.scheduler = getattr(pipe, "scheduler", None)
        self.kept: list[Nodes] = []
        self.begun, self.foreseen, self.steps = False, 0, 0

    @contextmanager
    def watching(self) -> Generator[None]:
        """Gradients are kept, and the forwards and steps of a call inside go by here."""
        import torch

        scheduler = self.scheduler
        steps = nullcontext() if scheduler is None else calls_of(type(scheduler), self.stepped, "step")
        with torch.enable_grad(), steps, self.doors.open():
            yield

    def through(self, name: str, way: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """A call of a component."""
        import torch

        call = self.doors.own(name, way)
        if not (way in FORWARD and denoises(name, self.doors.parts[name])):
            return call(*args, **given)
        self._begin()
        if given.get(CACHE) is True:
            given = {**given, CACHE: False}
        again = self.recompute if torch.is_grad_enabled() else None
        result = again(call, args, given) if again else call(*args, **given)
        made = nodes(result)
        if made:
            self.kept.append(made)
        return result

    def _begin(self) -> None:
        import torch

        if self.last is not None and not self.begun:
            self.begun, self.foreseen = True, _foreseen(self.pipe)
            if self.foreseen > self.last:
                torch.set_grad_enabled(False)

    def stepped(self, scheduler: Any, step: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """A step of a scheduler; one of the pipeline's is counted, and may be the last without gradients."""
        import torch

        result = step(scheduler, *args, **given)
        if scheduler is self.scheduler and self.begun:
            self.steps += 1
            if self.last is not None and self.steps == self.foreseen - self.last:
                torch.set_grad_enabled(True)
        return result

    def check(self, result: Any) -> None:
        """Raises where the gradients of `result` do not flow back to every forward that kept some.

        Unsupported where the pipeline's code lets go of them, or makes other steps than it said; BadInput where
        nothing asks for gradients.
        """
        kind = type(self.pipe).__name__
        if self.last is not None and self.steps != self.foreseen:
            made = f"{kind} made {self.steps} steps where {self.foreseen} were foreseen"
            raise Unsupported(f"{made}, so which are the last {self.last} could not be told: leave last out")
        if not self.kept and not any(tensor.requires_grad for tensor in tensors(result)):
            raise BadInput(f"nothing in this call of {kind} requires a gradient: call requires_grad_(True) on it")
        lost = len(self.kept) - reached(result, self.kept)
        if lost:
            raise Unsupported(
                f"the code of {kind} lets go of the gradients of {lost} of {len(self.kept)} forwards of its denoiser: "
                "it cannot be differentiated as a whole"
            )


def denoises(name: str, part: Any) -> bool:
    """Whether a forward of this component is one of the loop's."""
    from memplan.probes.trace import phase

    return phase(part, name, "forward") == DENOISING and not hasattr(part, "decode")


def _foreseen(pipe: Any) -> int:
    """How many steps the loop will make: what pipelines tell, or the timesteps that are set."""
    told = getattr(pipe, "num_timesteps", None)
    return told if isinstance(told, int) else len(pipe.scheduler.timesteps)
