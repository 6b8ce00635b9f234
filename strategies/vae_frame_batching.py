"""A VAE decodes some frames of a video at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan import pieces
from memplan.facts import BATCHED, Facts
from memplan.run import Run
from memplan.strategy import Decision, Switch, Undo

from .live.settings import changed
from .rules.other_way import OtherWay


@dataclass(frozen=True)
class VaeFrameBatching(OtherWay):
    """A VAE decodes a video some frames at a time, one stretch or batch after the other.

    It lowers the peak of the decode to about that of so many frames and the finished video, where the VAE would decode
    all of them together, as that of LTX-Video does. `frames` are those of the finished video, 0 as many as
    the library has for it. Others decode some at a time by themselves; for CogVideoX and HunyuanVideo it sets how many,
    and more of them take more memory. It changes the video a little: frames no longer see all of their neighbours, and
    HunyuanVideo and LTX-Video blend stretches that overlap. So it is never picked by itself, and a plan that names it
    has a dry run of its own made.

    Traps: frames come in multiples that the VAE decides; encoders may be told the same number, but are not turned on.
    """

    component: str = "vae"
    frames: int = 0

    name: ClassVar[str] = "vae_frame_batching"
    opt_in: ClassVar[str] = "frames no longer see all of their neighbours"
    known_as: ClassVar[tuple[str, ...]] = ("frame_batching", "framewise_decoding", "temporal_tiling")

    decision: ClassVar[Decision] = Decision.FRAMES
    lacks: ClassVar[str] = "frames"
    fails: ClassVar[str] = "fails with so many frames at a time"

    @property
    def way(self) -> str:
        """How the dry run names calls with so many frames at a time."""
        return _way(self.frames)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each number of frames that was asked for."""
        for component in facts.model.components:
            for way in sorted(facts.trace.ways(component.name)):
                name, _, frames = way.partition(":")
                if name == BATCHED:
                    yield cls(component.name, int(frames or 0))

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Switch]:
        """As many frames at a time as are asked for."""
        frames = settings.get("frames", 0)
        return {_way(frames): partial(_in_batches, frames=frames)}

    def idle(self, run: Run) -> str:
        """For frames that change nothing, or were not dry-run."""
        if not run.facts.trace.phases(self.component):
            return f"{self.component} is not called"
        number = f"{self.frames} frames" if self.frames else "the library's own number of frames"
        return (
            f"{number} at a time change nothing for this video, or need a dry run of their own, which {self.name} has "
            "made where a plan names it"
        )

    def apply(self, pipe: Any, device: str) -> Undo:
        """Sets what decides the frames; the way back gives every setting that this changed its former value.

        Raises BadInput for a number of frames that the VAE cannot have.
        """
        return _in_batches(getattr(pipe, self.component), self.frames)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """The switch where the VAE has one, and the loop that scales the numbers of frames."""
        switch = (
            f"vae = pipe.{self.component}",
            'if hasattr(vae, "use_framewise_decoding"):',
            "    vae.use_framewise_decoding = True",
        )
        if not self.frames:
            return switch
        return (
            *switch,
            'tiled = hasattr(vae, "_temporal_tiled_decode")',
            "most = vae.tile_sample_min_num_frames if tiled else vae.num_sample_frames_batch_size",
            "for name, number in list(vars(vae).items()):",
            '    if name.startswith("tile_" if tiled else "num_") and "frames" in name:',
            f"        setattr(vae, name, number * {self.frames} // most)",
        )


def _way(frames: int) -> str:
    return f"{BATCHED}:{frames}" if frames else BATCHED


def _in_batches(part: Any, frames: int) -> Undo:
    """Has `part` decode so many frames at a time; the value gives its settings their former values."""
    return changed(part, partial(pieces.frames, part, frames))
