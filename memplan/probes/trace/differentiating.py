"""The dry run of a call that keeps gradients: the call without, and what of it keeps them with its backward.

Those are the forwards of denoisers, and what a VAE decodes after them. Of each the first one is followed, with the
arguments that the call gives it; the others are taken to be like it.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from memplan.allocator import Pool
from memplan.facts import DENOISING, Call, Graph, Passes, Trace
from memplan.probes.fakes.twin import Twin
from memplan.probes.trace import Progress, dry_run
from memplan.probes.trace.attention import FLASH_SINCE
from memplan.probes.trace.calling import NO_SWITCHES, Switches
from memplan.probes.trace.given import given_to
from memplan.probes.trace.ledger import Ledger, rounded
from memplan.probes.trace.operands import tensors_in
from memplan.probes.trace.steps import TrainingStep, backward, detached, learned

WEIGHTS = "of the weights those of {} alone ask for gradients: call requires_grad_(False) on the other components"
LEFT_OUT = "what the loss and the scheduler keep for their backward is left out"
DECODED = "gradients flow through {}.decode(), whose weights ask for none"
NOT_DECODED = "the call ends with latents: nothing is decoded, and no gradient flows through a VAE"
ALIKE = "every forward of {} is taken to hold for its backward what the first one does"


def dry_run_with_gradients(
    twin: Twin,
    arguments: Mapping[str, Any],
    device: str = "cuda",
    capability: tuple[int, int] = FLASH_SINCE,
    *,
    progress: Progress | None = None,
    switches: Switches = NO_SWITCHES,
) -> Trace:
    """Follow `twin.pipe(**arguments)`, and what of it keeps gradients, as it is and in each way of `switches`.

    Raises BadInput where the pipeline refuses the arguments.
    """
    trace = dry_run(twin, arguments, device, progress, capability)
    steps, kind, graphs = _steps(twin.pipe), (device, capability), list[Graph]()
    failed, assumptions = list(trace.failed), dict.fromkeys(trace.assumptions)
    every = _differentiated(trace)
    first = {(call.component, call.method): call for call in reversed(every)}
    for (name, method), call in reversed(first.items()):
        if progress:
            progress(f"dry run: {name} with its backward")
        inputs = given_to(twin, arguments, name, kind, method)
        step = Differentiated(
            name, twin.components()[name], inputs, twin, kind, twice=True, method=method, phase=call.phase
        )
        graphs += _followed(step, switches if call.phase == DENOISING else NO_SWITCHES)
        failed += ((name, way, words) for way, words in step.failed.items())
        assumptions |= step.assumptions
    assumptions |= dict.fromkeys(_said(every))
    return replace(trace, graphs=tuple(graphs), steps=steps, failed=tuple(failed), assumptions=tuple(assumptions))


def _differentiated(trace: Trace) -> list[Call]:
    """The calls of `trace` through which gradients flow: of denoisers, and of what comes after the first of them."""
    calls = [trace.calls[step.call] for step in trace.timeline]
    first = next(
        (number for number, call in enumerate(calls) if call.phase == DENOISING and call.component), len(calls)
    )
    return list(dict.fromkeys(call for call in calls[first:] if call.component))


def _said(calls: list[Call]) -> Iterator[str]:
    """What is covered, and what is not."""
    denoisers = [call.component for call in calls if call.phase == DENOISING]
    others = [call for call in calls if call.phase != DENOISING]
    yield WEIGHTS.format(" and ".join(dict.fromkeys(denoisers)))
    yield from (DECODED.format(call.component) for call in others if call.method == "decode")
    if not others:
        yield NOT_DECODED
    yield LEFT_OUT
    yield from (ALIKE.format(name) for name in dict.fromkeys(denoisers) if denoisers.count(name) > 1)


def _steps(pipe: Any) -> int:
    """How many steps the pipeline's loop has made: what it tells, or the timesteps that are set; 0 without them."""
    told = getattr(pipe, "num_timesteps", None)
    return told if isinstance(told, int) else len(getattr(getattr(pipe, "scheduler", None), "timesteps", None) or ())


def _followed(step: "Differentiated", switches: Switches) -> list[Graph]:
    """The call with its backward as it is, and in each of the ways that hold other memory."""
    step.ask()
    graphs = [step.graph(step.follow((), NO_SWITCHES)[0])]
    for way in switches:
        calls = step.attempt(way, switches)
        if calls:
            graphs.append(step.graph(calls[0]))
    return [graph for number, graph in enumerate(graphs) if not number or graph.tensors != graphs[0].tensors]


@dataclass
class Differentiated(TrainingStep):
    """One call of a `method` whose first argument has a history, and its backward."""

    method: str = "forward"
    phase: str = DENOISING
    measured: list[tuple[Passes, Passes]] = field(default_factory=list)

    def ask(self) -> None:
        """Its weights ask for gradients where it denoises, and else for none."""
        for weight in self.module.parameters():
            weight.requires_grad_(self.phase == DENOISING and weight.is_floating_point())

    @contextmanager
    def in_mode(self) -> Generator[None]:
        """Modes stay as they are; it has no gradients after it."""
        self.measured.clear()
        try:
            yield
        finally:
            self.module.zero_grad(set_to_none=True)

    def passes(self, ledger: Ledger) -> None:
        """The call, and its backward from gradients of what it returned."""
        recording = ledger.recording
        inputs = tree_map(detached, self.inputs)
        asked = [tensor.requires_grad_() for tensor in _own(inputs)]
        given = sum(rounded(tensor.untyped_storage().nbytes(), ledger.unit) for tensor in asked)
        result = getattr(self.module, self.method)(**inputs)
        ledger.cut()
        turn = len(recording.stretches) - 1
        kept, forward = recording.pool.occupied, recording.pool.highest
        recording.pool.highest = kept
        results = learned(result, self.component)
        gradients = [torch.ones_like(tensor) for tensor in results]
        del result
        backward(results, gradients)
        del results, gradients, inputs, asked
        highest = [max(s.peak for s in part) for part in (recording.stretches[:turn], recording.stretches[turn:])]
        saved, left = recording.stretches[turn].live, ledger.live - recording.base
        tensors = Passes(saved, highest[0], highest[1], highest[1], left, given)
        taken = recording.pool.highest
        segments = Passes(kept, forward, taken, taken, recording.pool.occupied, _segments(given))
        self.measured.append((tensors, segments))

    def graph(self, call: Call) -> Graph:
        """What `call`, followed last, holds; of the pass that finds gradients only what it holds beside them."""
        (tensors, segments), (later, taken) = self.measured
        first = replace(call, method=self.method, phase=self.phase)
        return Graph(first, replace(tensors, again=later.again), replace(segments, again=taken.again))


def _own(inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    """What of the arguments comes from the loop: the first one, which diffusers' denoisers are given to denoise."""
    found = (tensor for value in inputs.values() for tensor in tensors_in(tree_leaves(value)))
    return [tensor for tensor in found if tensor.is_floating_point()][:1]


def _segments(nbytes: int) -> int:
    """Bytes of the segments that the allocator takes for so many."""
    pool = Pool()
    pool.take(nbytes)
    return pool.occupied
