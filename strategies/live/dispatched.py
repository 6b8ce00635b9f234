"""The attention processors of a live model that go through diffusers' dispatcher, and what they compute with."""

from typing import Any

from memplan.names import DISPATCHED
from memplan.strategy import Undo

from .way_back import switched


def processors(part: Any) -> list[Any]:
    """Those of `part`, each once."""
    found = (getattr(module, "processor", None) for module in part.modules())
    return list({id(processor): processor for processor in found if hasattr(processor, DISPATCHED)}.values())


def ready(part: Any, backend: str) -> None:
    """Has diffusers check what `backend` needs, and download its kernel where that comes from the Hub.

    Raises RuntimeError, ValueError, ImportError or OSError where `part` cannot compute with it here.
    """
    from diffusers.models import attention_dispatch as library

    name = library.AttentionBackendName(backend)
    split = any(getattr(processor, "_parallel_config", None) is not None for processor in processors(part))
    if split and not library._AttentionBackendRegistry._is_context_parallel_available(name):
        raise ValueError("it does not go with the context parallelism that is on")
    library._check_attention_backend_requirements(name)
    library._maybe_download_kernel_for_backend(name)


def chosen(part: Any, backend: str) -> Undo:
    """Has each processor of `part` compute with `backend`, whether it is installed or not; the value undoes it."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    there, name = processors(part), AttentionBackendName(backend)

    def choose() -> None:
        for processor in there:
            setattr(processor, DISPATCHED, name)

    return switched(there, choose)
