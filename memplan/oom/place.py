"""Where in a generation an error was raised."""

from dataclasses import dataclass

LOADING, PREPARING = "loading", "preparing"
IMAGE_ENCODING, DENOISING, DECODING = "image encoding", "denoising", "decoding"
POSTPROCESSING = "post-processing"


@dataclass(frozen=True)
class Place:
    """A phase of a generation, and the module whose code ran.

    `phase` is one of a bill's, "" where none can be told; `step` of `steps` is the denoising step, from 1 on, each None
    where it is not known. `module` is the dotted path inside `component`, `class_name` that module's class; both are ""
    where only the pipeline's own code ran. `function` is the innermost function of a pipeline's code or of a module.
    """

    phase: str = ""
    step: int | None = None
    steps: int | None = None
    component: str = ""
    module: str = ""
    class_name: str = ""
    function: str = ""

    @property
    def path(self) -> str:
        """The module as it is reached from the pipeline; "" for the pipeline's own code."""
        return ".".join(filter(None, (self.component, self.module)))
