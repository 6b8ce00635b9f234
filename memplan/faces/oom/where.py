"""Finds the phase, the denoising step and the module of an error in its frames."""

from collections.abc import Iterator, Sequence
from typing import Any

from memplan.faces.oom.frames import Frame, is_module, is_pipeline, loop
from memplan.facts import TEXT_ENCODING
from memplan.oom.place import DECODING, DENOISING, IMAGE_ENCODING, LOADING, POSTPROCESSING, PREPARING, Place

LOADERS = (
    "from_pretrained", "from_single_file", "from_pipe", "load_lora_weights", "load_textual_inversion",
    "load_ip_adapter", "load_checkpoint_and_dispatch", "load_components", "load_state_dict", "load_file", "to", "cuda",
    "half", "enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload", "auto_optimize",
)  # fmt: skip
"""Functions that bring weights to where they are used, before a call."""
METHODS = ("decode", "encode", "forward", "_call_impl")
"""How a component is called; the last one is how torch calls any."""
OWN = (
    ("postprocess", POSTPROCESSING), ("numpy_to_pil", POSTPROCESSING), ("pt_to_numpy", POSTPROCESSING),
    ("safety_checker", "safety check"), ("encode_prompt", TEXT_ENCODING), ("prompt_embeds", TEXT_ENCODING),
    ("encode_image", IMAGE_ENCODING), ("encode_vae", IMAGE_ENCODING), ("encode_video", IMAGE_ENCODING),
    ("decode", DECODING), ("prepare", PREPARING), ("preprocess", PREPARING),
)  # fmt: skip
"""Parts of the names of functions of the pipelines' own code, and their phases."""


def place(stack: Sequence[Frame], call: int | None, pipes: Sequence[Any]) -> Place:
    """The place of an error whose frames are `stack`, of which number `call` is a pipeline's call, or none is."""
    component, path, module = _module(stack, pipes)
    function = next((f.function for f in reversed(stack) if is_module(f.owner) or is_pipeline(f.owner)), "")
    class_name = type(module).__name__ if module is not None else ""
    step, steps, own = _own_code(stack[call:]) if call is not None else (None, None, "")
    loads = call is None and any(frame.function in LOADERS for frame in stack)
    phase = _of_component(stack, component, pipes) or own or (LOADING if loads else "")
    at = (step, steps) if phase == DENOISING else (None, None)
    return Place(phase, *at, component, path, class_name, function)


# ---- modules ---------------------------------------------------------------------------------------------------------
def _module(stack: Sequence[Frame], pipes: Sequence[Any]) -> tuple[str, str, Any]:
    """The innermost module that ran: its component, its path there, and itself; one of no pipeline has no path."""
    running = [frame.owner for frame in reversed(stack) if is_module(frame.owner)]
    known = {id(module): (name, path) for name, path, module in _modules(pipes)}
    for module in running:
        if id(module) in known:
            return (*known[id(module)], module)
    return ("", "", running[0]) if running else ("", "", None)


def _modules(pipes: Sequence[Any]) -> Iterator[tuple[str, str, Any]]:
    for pipe in pipes:
        for name, part in getattr(pipe, "components", {}).items():
            if is_module(part):
                for path, module in part.named_modules():
                    yield name, path.replace("_orig_mod.", ""), module


def _of_component(stack: Sequence[Frame], component: str, pipes: Sequence[Any]) -> str:
    """The phase in which `component` was called the way it was; "" where it was not called."""
    if not component:
        return ""
    from memplan.probes.trace import phase

    parts = [p.components[component] for p in pipes if component in getattr(p, "components", {})]
    ran = [(part, f.function) for part in parts for f in stack if f.owner is part]
    methods = [(part, way) for way in METHODS for part, function in ran if way in function]
    return phase(methods[0][0], component, methods[0][1]) if methods else ""


# ---- the pipeline's own code -----------------------------------------------------------------------------------------
def _own_code(inner: Sequence[Frame]) -> tuple[int | None, int | None, str]:
    """Step, steps and phase by the frames of a pipeline's call: the loop over timesteps parts it."""
    named = next((phase for f in reversed(inner) for part, phase in OWN if part in f.function), "")
    for frame in inner:
        found = None if is_module(frame.owner) else loop(frame)
        if found is None:
            continue
        if found.first <= frame.line <= found.last:
            return found.turn, found.turns, DENOISING if named in ("", PREPARING) else named
        return None, None, named or (PREPARING if frame.line < found.first else DECODING)
    return None, None, named
