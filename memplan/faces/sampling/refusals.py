"""What cannot be differentiated, and why."""

import ast
import inspect
from collections.abc import Callable, Mapping
from textwrap import dedent
from typing import Any

from memplan.applier import offloaded
from memplan.errors import BadInput, Unsupported
from memplan.faces.oom.frames import is_pipeline
from memplan.faces.oom.scene import ORIGINAL
from memplan.strategy import AT_THE_DOOR

STEP, BLOCK = "step", "block"
"""What can be checkpointed: each forward of a denoiser, or each of its blocks."""
TENSORS = ("latent", "pt")
"""The values of `output_type` that give tensors of torch; the others give numbers without a history."""
LETS_GO = ("detach", "no_grad", "inference_mode")
"""How code lets go of gradients."""
ALWAYS_THE_SAME = "split_guidance"
"""What stands before a denoiser's forward and does the same the second time; others go by the calls before."""


def check_options(checkpoint: Any, last: Any) -> None:
    """Raises BadInput for values that mean nothing."""
    if checkpoint not in (None, STEP, BLOCK):
        raise BadInput(f'checkpoint is "{STEP}", "{BLOCK}" or None, not {checkpoint!r}')
    if last is not None and (not isinstance(last, int) or isinstance(last, bool) or last < 1):
        raise BadInput(f"last is the number of steps that keep gradients, 1 or more, not {last!r}")


def check_pipeline(pipe: Any, method: str) -> None:
    """Raises BadInput for what is no pipeline and no such method, and Unsupported for pipelines made of others."""
    import torch

    kind = type(pipe).__name__
    if not is_pipeline(pipe) and not (isinstance(pipe, torch.nn.Module) and method != "__call__"):
        raise BadInput(f'{kind} is no pipeline: give one, or a module and the method that samples, as in "sample"')
    if not callable(getattr(type(pipe), method, None)):
        raise BadInput(f"{kind} has no method {method}()")
    if hasattr(pipe, "_blocks") and is_pipeline(pipe):
        raise Unsupported(f"{kind} runs its blocks under torch.no_grad(): use the pipeline class that is not modular")
    inner = [name for name, value in vars(pipe).items() if is_pipeline(value)]
    if inner:
        raise Unsupported(f"{kind} calls pipelines of its own, {', '.join(inner)}: differentiate the calls of each")
    line = _letting_go(without_no_grad(getattr(type(pipe), method)))
    if line:
        raise Unsupported(f"{kind}.{method}() lets go of gradients on its way: {line}")


def check_parts(parts: Mapping[str, Any], checkpoint: str | None) -> None:
    """Raises for components whose weights are not there in backward(), or that a checkpoint would compute otherwise."""
    for name, part in parts.items():
        if any(offloaded(module) for module in part.modules()):
            raise Unsupported(f"{name} is offloaded, so its weights would be gone in backward(): undo that first")
        if any(_cast(module) for module in part.modules()):
            raise Unsupported(f"{name} is cast layer by layer, so backward() would find other weights: undo that first")
        there = vars(part).get(AT_THE_DOOR, ALWAYS_THE_SAME)
        if checkpoint == STEP and not there.startswith(ALWAYS_THE_SAME):
            raise Unsupported(f"{name} has {there}, which goes by earlier calls and cannot compute one again: undo it")


def check_call(kind: str, call: Callable[..., Any], parts: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises for a call that would lose its gradients; `given` are its arguments by name."""
    import torch

    if torch.is_inference_mode_enabled():
        raise BadInput("there are no gradients in torch.inference_mode(): call the pipeline outside of it")
    parameter = inspect.signature(call).parameters.get("output_type")
    wanted = given.get("output_type", parameter.default) if parameter else TENSORS[0]
    if wanted not in TENSORS:
        cure = 'give "pt" for pictures or "latent" for latents'
        raise BadInput(f'output_type="{wanted}" leaves torch, and gradients with it: {cure}')
    for name, part in parts.items():
        if any(_infers(module) for module in part.modules()):
            raise Unsupported(f"{name} of {kind} runs its experts under torch.no_grad() in eval mode: call train()")


def left_torch(kind: str, error: RuntimeError) -> Unsupported | None:
    """The sentence for an error by which code that leaves torch fails on what keeps gradients; None for others."""
    if "numpy() on Tensor that requires grad" not in str(error):
        return None
    return Unsupported(f'{kind} makes numbers without a history of its result: give output_type="latent"')


def without_no_grad(function: Any) -> Any:
    """The function that torch.no_grad() decorates, if that is how `function` came to be, else `function`."""
    found, layer = function, function
    while hasattr(layer, "__wrapped__"):
        if layer.__code__.co_name == ORIGINAL:
            found = layer.__wrapped__
        layer = layer.__wrapped__
    return found


def _letting_go(function: Any) -> str:
    """The first line in which `function` itself lets go of gradients; "" where none does or its code is not at hand."""
    try:
        source = dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""
    definition: Any = ast.parse(source).body[0]
    for statement in definition.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and node.attr in LETS_GO:
                return source.splitlines()[node.lineno - 1].strip()
    return ""


def _infers(module: Any) -> bool:
    """Whether it is one of HiDream's mixtures of experts, and takes the way that it has for inference."""
    if type(module).__name__ != "MOEFeedForwardSwiGLU":
        return False
    return not module.training or module._force_inference_output


def _cast(module: Any) -> bool:
    registry = vars(module).get("_diffusers_hook")
    return registry is not None and registry.get_hook("layerwise_casting") is not None
