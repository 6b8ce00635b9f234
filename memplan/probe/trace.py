"""The dry run: the user's real call on fake weights, written down as a timeline of segments."""

import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from memplan.errors import BadInput
from memplan.facts import Trace
from memplan.probe.doors import Doors, Shape
from memplan.probe.kernels import Kernels
from memplan.probe.ledger import ALLOCATION_UNIT, Ledger
from memplan.probe.postprocess import METHOD as POSTPROCESS
from memplan.probe.postprocess import postprocessing
from memplan.probe.timeline import OWN_CODE, Progress, Timeline
from memplan.probe.tracker import Tracker
from memplan.probe.twin import Twin

IMAGE = 4
"""Dimensions of a batch of images; videos have one more."""
SHOWN = 60
"""Characters of an argument that are shown."""
SIZES = ("height", "width", "num_frames", "num_images_per_prompt", "num_videos_per_prompt", "num_inference_steps")
"""Arguments that decide how much a call holds and how long it takes."""


def dry_run(twin: Twin, arguments: Mapping[str, Any], device: str = "cuda", progress: Progress | None = None) -> Trace:
    """Run `twin.pipe(**arguments)` on fake weights and return its timeline.

    `device` is the kind whose kernels are assumed, "cuda" or "cpu". Raises BadInput when the pipeline refuses the
    arguments, with the pipeline's own words.
    """
    check(twin.pipe, arguments)
    ledger = Ledger(ALLOCATION_UNIT if device == "cuda" else 1)
    components = twin.components()
    timeline = Timeline(ledger, lambda name, method: phase(components.get(name), name, method), progress or print_not)
    doors = Doors(ledger, twin.mode, device, timeline.own_code, timeline.visit)
    kernels = Kernels(ledger, device)
    for module in components.values():
        for weight in (*module.parameters(), *module.buffers()):
            ledger.own(weight)
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        for context in (doors.open(components), postprocessing(twin.pipe, doors), kernels, Tracker(ledger, device)):
            stack.enter_context(context)
        result = _call(twin.pipe, arguments)
        calls, steps = timeline.finish()
    del result
    shown = tuple((name, show(value)) for name, value in effective(twin.pipe, arguments, doors).items())
    tiled = tuple(call for call in timeline.alternatives() if call.component not in doors.untileable)
    return Trace(device, calls, steps, tiled, shown, tuple(kernels.assumptions))


def phase(module: torch.nn.Module | None, component: str, method: str) -> str:
    """The phase of a generation that a call belongs to."""
    if component == OWN_CODE:
        return "post-processing" if method == POSTPROCESS else "preparing"
    if method == "decode":
        return "decoding"
    if method == "encode":
        return "image encoding"
    if component == "safety_checker":
        return "safety check"
    if type(module).__module__.startswith("transformers."):
        return "image encoding" if "image" in component or "vision" in component else "text encoding"
    return "denoising"


def effective(pipe: Any, arguments: Mapping[str, Any], doors: Doors) -> dict[str, Any]:
    """The call's arguments and what the pipeline chose itself for those that decide its size."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    chosen = {name: parameters[name].default for name in SIZES if name in parameters and name not in arguments}
    decoded = next((v.result for v in doors.seen.values() if v.method == "decode"), None)
    image = next((leaf for leaf in tree_leaves(decoded) if isinstance(leaf, Shape) and len(leaf.size) >= IMAGE), None)
    if image is not None:
        chosen |= {name: image.size[axis] for name, axis in (("height", -2), ("width", -1)) if name in chosen}
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
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def print_not(message: str) -> None:
    """Say nothing."""


def check(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Raises BadInput for an argument that the pipeline does not name, and for a size below one."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    for name, value in arguments.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise BadInput(
                f"{type(pipe).__name__} refuses this call: no argument {name!r}.{meant} It takes: {', '.join(known)}"
            )
        if name in SIZES and isinstance(value, int) and value < 1:
            raise BadInput(f"{name} is {value}; it must be at least 1")


def _call(pipe: Any, arguments: Mapping[str, Any]) -> Any:
    """Run the pipeline; the caller's generators stay where they are, and may be a GPU's."""
    own = tree_map(lambda value: torch.Generator() if isinstance(value, torch.Generator) else value, dict(arguments))
    try:
        with torch.no_grad():
            return pipe(**own)
    except (TypeError, ValueError, NotImplementedError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise BadInput(f"{type(pipe).__name__} refuses this call: {error}") from error
