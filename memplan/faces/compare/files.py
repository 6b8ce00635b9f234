"""The outputs of both sides as files."""

from pathlib import Path

from memplan.errors import BadInput
from memplan.faces.compare.comparison import Comparison
from memplan.faces.compare.pictures import image
from memplan.faces.compare.values import Value


def save(found: Comparison, folder: Path) -> tuple[Path, ...]:
    """Each picture as a PNG and each array as .npy, named by seed, output, frame and side. Raises BadInput."""
    sides = (("without", "before"), ("with", "after"))
    every = [(getattr(pair, side), pair.seed, word) for pair in found.pairs for word, side in sides]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tuple(_written(value, seed, word, folder) for value, seed, word in every if value is not None)
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror or error}") from error


def _written(value: Value, seed: int, word: str, folder: Path) -> Path:
    frame = "" if value.frame is None else f"-{value.frame:04}"
    name = f"{seed}-{value.output.replace(' ', '_')}-{value.item}{frame}-{word}"
    if value.kind == "picture":
        file = folder / f"{name}.png"
        image(value.unit).save(file)
        return file
    import numpy

    file = folder / f"{name}.npy"
    numpy.save(file, value.data.float().numpy())
    return file
