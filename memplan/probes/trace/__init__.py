"""The dry run: the user's real call on fake weights, written down as a timeline of segments."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from memplan.errors import BadInput, Unsupported, did_you_mean
from memplan.facts import DENOISING, TEXT_ENCODING, Trace
from memplan.facts.trace import TOGETHER
from memplan.probes.fakes.sizes import SIZES, check_sizes
from memplan.probes.fakes.twin import Twin
from memplan.probes.trace.attention import FLASH_SINCE
from memplan.probes.trace.backends import backends
from memplan.probes.trace.calling import NO_SWITCHES, Switches
from memplan.probes.trace.doors import Doors
from memplan.probes.trace.elsewhere import asking
from memplan.probes.trace.inputs import attempts, describe, made_up, read
from memplan.probes.trace.kernels import Kernels
from memplan.probes.trace.ledger import ALLOCATION_UNIT, Ledger
from memplan.probes.trace.passes import Passes
from memplan.probes.trace.postprocess import METHOD as POSTPROCESS
from memplan.probes.trace.postprocess import postprocessing
from memplan.probes.trace.products import products
from memplan.probes.trace.prompting import Prompting, prompting
from memplan.probes.trace.reached import running
from memplan.probes.trace.shapes import Shape
from memplan.probes.trace.timeline import OWN_CODE, Timeline
from memplan.probes.trace.tracker import Tracker
from memplan.probes.trace.turns import Turns
from memplan.probes.trace.unseen import unseen_fakes

Progress = Callable[[str], None]
IMAGE, VIDEO = 4, 5
"""Dimensions of a batch of images, and of videos."""
POSTPROCESSING = "post-processing"
"""The phase in which the pipeline makes pictures of what was decoded."""
OTHERS = {"safety_checker": "safety check", "connectors": "text encoding", "vocoder": "decoding"}
"""Phases of components that are known by their names: connectors refine a text's embeddings, vocoders make sound."""
SHOWN = 60
"""Characters of an argument that are shown."""
CLOSING = {"'": "'", '"': '"', "[": "]", "(": ")", "{": "}"}
"""What a text or a table ends with, by what it begins with."""


def dry_run(
    twin: Twin,
    arguments: Mapping[str, Any],
    device: str = "cuda",
    progress: Progress | None = None,
    capability: tuple[int, int] = FLASH_SINCE,
    *,
    switches: Switches = NO_SWITCHES,
) -> Trace:
    """Run `twin.pipe(**arguments)` on fake weights and return its timeline.

    `device` is the kind whose kernels are assumed, "cuda" or "cpu", `capability` the compute capability of "cuda";
    `progress` is told which component is traced. `switches` do ways to call components that are followed besides. A
    picture may be given as a size or as a path; one that the pipeline needs and that is absent is made up.

    Raises BadInput when the pipeline refuses the arguments, with the pipeline's own words.
    """
    check(twin.pipe, arguments)
    given = read(twin.pipe, arguments)
    refusals: list[BadInput] = []
    traced: list[str] = []

    def say(component: str) -> None:
        traced.append(component)
        if progress:
            progress(f"dry run: {component or POSTPROCESSING}")

    for names, optional in attempts(twin.pipe, given):
        try:
            pictures = made_up(twin.pipe, names, given)
            return _trace(twin, given, pictures, (device, capability), say=say, switches=switches)
        except Unsupported:
            raise
        except BadInput as refusal:
            if not optional:
                refusals.append(refusal)
            if OWN_CODE in traced:  # it got as far as its post-processing: no picture was missing
                break
    raise refusals[-1]  # of the user's own call, with all that it needs


def _trace(
    twin: Twin,
    given: Mapping[str, Any],
    pictures: Mapping[str, Any],
    kind: tuple[str, tuple[int, int]],
    *,
    say: Progress,
    switches: Switches,
) -> Trace:
    """The timeline of a call with the arguments `given` and the made-up `pictures` on a device of this `kind`."""
    arguments, (device, capability) = {**given, **pictures}, kind
    ledger = Ledger(ALLOCATION_UNIT if device == "cuda" else 1)
    components, prompt = twin.components(), Prompting()
    timeline = Timeline(ledger, lambda name, method: phase(components.get(name), name, method), prompt)
    passes = Passes(timeline.visit)
    doors = Doors(ledger, twin.mode, device, timeline.own_code, passes.visit, say, switches=switches)
    for module in components.values():
        for weight in (*module.parameters(), *module.buffers()):
            ledger.own(weight)
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        elsewhere = products(ledger, device), backends(ledger, device, capability)
        opened = (doors.open(components), postprocessing(twin.pipe, doors), unseen_fakes(), *elsewhere)
        for context in (*opened, prompting(twin.pipe, prompt)):
            stack.enter_context(context)
        entered = stack.enter_context(running(components, lambda: doors.inside))
        places = stack.enter_context(asking(twin.pipe, components, lambda: doors.inside))
        turns = Turns(twin.pipe, ledger)
        stack.enter_context(turns.watching(components))
        doors.on_called, doors.on_returned = turns.given, places.returned
        doors.on_given = passes.watching(places.given)
        for mode in (Kernels(ledger, device, capability), Tracker(ledger, device)):
            stack.enter_context(mode)
        result = _call(twin.pipe, arguments)
        calls, steps = timeline.finish()
    del result
    named = effective(twin.pipe, arguments, doors).items()
    shown = tuple((name, describe(value, invented=name in pictures) or show(value)) for name, value in named)
    tried_ways = {**passes.failures(switches), **doors.failed}
    failed = tuple((name, TOGETHER.join(ways), words) for (name, ways), words in tried_ways.items())
    ran = tuple(sorted(entered))
    tried = Trace(
        device,
        calls,
        steps,
        failed=failed,
        reached=ran,
        host_side=places.groups(),
        turns=tuple(turns.taken),
        encoded=prompt.encoded,
    )
    others = tuple(c for c in timeline.alternatives() if not tried.failure(c.component, *c.variant))
    assumptions = (*twin.assumptions, *ledger.assumptions)
    return replace(tried, alternatives=others, arguments=shown, assumptions=assumptions)


def phase(module: torch.nn.Module | None, component: str, method: str) -> str:
    """The phase of a generation that a call belongs to."""
    if component == OWN_CODE:
        return POSTPROCESSING if method == POSTPROCESS else "preparing"
    if method == "decode":
        return "decoding"
    if method == "encode" or type(module).__module__ == "diffusers.models.adapter":
        return "image encoding"
    if component in OTHERS:
        return OTHERS[component]
    if type(module).__module__.startswith("transformers."):
        return "image encoding" if "image" in component or "vision" in component else TEXT_ENCODING
    return DENOISING


def effective(pipe: Any, arguments: Mapping[str, Any], doors: Doors) -> dict[str, Any]:
    """The call's arguments and what the pipeline chose itself for those that decide its size."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    chosen = {name: parameters[name].default for name in SIZES if name in parameters and name not in arguments}
    decoded = next((v.result for v in doors.visits() if v.method == "decode"), None)
    image = next((leaf for leaf in tree_leaves(decoded) if isinstance(leaf, Shape) and len(leaf.size) >= IMAGE), None)
    if image is not None:
        axes = {"height": -2, "width": -1} | ({"num_frames": -3} if len(image.size) == VIDEO else {})
        chosen |= {name: image.size[axis] for name, axis in axes.items() if name in chosen}
    return {**arguments, **{name: value for name, value in chosen.items() if value is not None}}


def show(value: Any) -> str:
    """An argument as people read it."""
    if isinstance(value, torch.Tensor):
        return f"tensor{tuple(value.shape)}"
    text = (
        repr(value)
        if isinstance(value, str | int | float | bool | list | tuple | dict | None)
        else type(value).__name__
    )
    if len(text) <= SHOWN:
        return text
    closing = CLOSING.get(text[0], "")
    return f"{text[: SHOWN - 1 - len(closing)]}…{closing}"


def check(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Raises BadInput for an argument that the pipeline does not name, and for a size below one."""
    check_sizes(arguments)
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    for name in arguments:
        if name not in known:
            meant, takes = did_you_mean(name, known), f"It takes: {', '.join(known)}"
            raise BadInput(f"{type(pipe).__name__} refuses this call: no argument {name!r}.{meant} {takes}")


def _call(pipe: Any, arguments: Mapping[str, Any]) -> Any:
    """Run the pipeline; the caller's generators stay where they are, and may be a GPU's."""
    own = tree_map(lambda value: torch.Generator() if isinstance(value, torch.Generator) else value, dict(arguments))
    try:
        with torch.no_grad():
            return pipe(**own)
    except BadInput:
        raise
    except (TypeError, ValueError, NotImplementedError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise BadInput(f"{type(pipe).__name__} refuses this call: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What an error says first: the rest of PyTorch's are advice for those who run something."""
    return f"{error}".partition("\n")[0] or type(error).__name__
