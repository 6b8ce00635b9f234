"""Reads model_index.json of a saved pipeline. It needs no torch, so that a wrong folder is known at once."""

from pathlib import Path
from typing import Any

from memplan.errors import BadInput, Unsupported
from memplan.probes.sources.jsons import json_table

MODULAR = "modular_model_index.json"
"""What a saved ModularPipeline has in its place."""


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json of `folder`. Raises BadInput for a folder that is not there or is no saved pipeline."""
    if not folder.exists():
        raise BadInput(f"there is no folder {folder}. Check the path, or name a bundled model.")
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file; give the folder of a pipeline, the one with model_index.json in it.")
    if not (folder / "model_index.json").exists():
        if (folder / MODULAR).exists():
            raise Unsupported(
                f"{folder} is a ModularPipeline, which is planned in memory only. Load it, and give that."
            )
        raise BadInput(
            f"{folder} has no model_index.json, so it is not a saved pipeline. Give the folder that "
            f"pipe.save_pretrained() wrote or that was downloaded whole."
        )
    return json_table(folder / "model_index.json")
