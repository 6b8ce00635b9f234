"""Files that hold a component's offload groups: where they are written, and the way back out of them."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memplan.errors import BadInput
from memplan.strategy import Undo


def fresh(component: str, parent: str) -> str:
    """A new folder in `parent`, deleted when the process ends.

    diffusers reads a file that it finds instead of writing it, under names that are the same for every component of a
    class: in a folder that was used before, or is shared, it would take the weights of another. Raises BadInput.
    """
    if not Path(parent).is_dir():
        raise BadInput(f"there is no folder {parent} for the weights of {component}: make it, or name another")
    folder = tempfile.mkdtemp(prefix=f"{component}-", dir=parent)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def read_back(part: Any, folder: str) -> Undo:
    """Gives each weight of `part` that is in a file of `folder` its bytes again, and deletes the folder."""

    def undo() -> None:
        for group in _groups(part):
            _read(group)
        shutil.rmtree(folder, ignore_errors=True)

    return undo


def _groups(part: Any) -> Iterator[Any]:
    """The groups of `part` that are in files."""
    for module in part.modules():
        registry = vars(module).get("_diffusers_hook")
        hook = registry.get_hook("group_offloading") if registry else None
        if hook and hook.group._is_offloaded_to_disk:
            yield hook.group


def _read(group: Any) -> None:
    from safetensors.torch import load_file

    found = load_file(group.safetensors_file_path)
    for key, tensor in group.key_to_tensor.items():
        tensor.data = found[key].clone()  # what is read may still be mapped from the file
