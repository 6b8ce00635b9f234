"""The attention processors of a live model that go through diffusers' dispatcher, and what they compute with."""

from typing import Any

from memplan.strategy import Undo

from .way_back import switched

CHOICE = "_attention_backend"
"""The attribute by which a processor tells the dispatcher; None leaves it to the process."""


def processors(part: Any) -> list[Any]:
    """Those of `part`, each once."""
    found = (getattr(module, "processor", None) for module in part.modules())
    return list({id(processor): processor for processor in found if hasattr(processor, CHOICE)}.values())


def chosen(part: Any, backend: str) -> Undo:
    """Has each processor of `part` compute with `backend`, whether it is installed or not; the value undoes it."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    there, name = processors(part), AttentionBackendName(backend)

    def choose() -> None:
        for processor in there:
            setattr(processor, CHOICE, name)

    return switched(there, choose)
