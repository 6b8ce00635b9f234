"""Loads components anew whose original weights a plan has given up."""

from pathlib import Path
from typing import Any

from memplan.applier import applied
from memplan.errors import BadInput
from memplan.faces.api import Progress
from memplan.faces.quiet import libraries_quiet
from memplan.strategy import Decision


def reload(pipe: Any, *, progress: Progress | None = None) -> tuple[str, ...]:
    """Undo what is applied to `pipe`, and load anew the components whose originals it gave up. The value names those.

    Each comes from where it was loaded from, in its dtype, to the device where it is after undo(); other references to
    the old one keep that. Raises BadInput where nothing is applied, and, before anything is undone, for a component
    that was made in memory.
    """
    done = applied(pipe)
    if done is None:
        raise BadInput("nothing is applied to this pipeline: there is nothing to reload")
    seats = [seat for strategy in done.strategies if strategy.final for seat in strategy.seats]
    names = dict.fromkeys(seat.component for seat in seats if seat.decision is Decision.FORMAT)
    places = {name: _place(name, getattr(pipe, name)) for name in names}
    done.undo()
    for name, place in places.items():
        if progress:
            progress(f"loading {name}")
        old = getattr(pipe, name)
        with libraries_quiet():
            new = type(old).from_pretrained(**place, dtype=old.dtype)
        pipe.register_modules(**{name: new.to(next(old.parameters()).device)})
    return tuple(places)


def _place(name: str, part: Any) -> dict[str, str]:
    """What from_pretrained() takes to find the component: its own folder, or a pipeline's with its name."""
    config = getattr(part, "config", {})
    path = config.get("_name_or_path") if isinstance(config, dict) else getattr(config, "_name_or_path", "")
    if not path:
        raise BadInput(f"{name} was made in memory, so nothing says where to load it from. Nothing has been undone.")
    folder = Path(path)
    if folder.is_file():
        raise BadInput(f"{name} was loaded from the file {path}: load it again with from_single_file().")
    own = folder.is_dir() and not (folder / "model_index.json").exists()
    return {"pretrained_model_name_or_path": path} | ({} if own else {"subfolder": name})
