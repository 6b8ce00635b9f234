"""A VAE works on one tile after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import TILED, Facts
from memplan.run import Run
from memplan.strategy import Decision, Undo

from .live.way_back import switched
from .rules.other_way import OtherWay


@dataclass(frozen=True)
class VaeTiling(OtherWay):
    """A VAE encodes and decodes overlapping tiles, one after the other, and blends them.

    It lowers the peak of the decode to about that of one tile and the finished picture, where the decode is the
    highest peak: large pictures and videos. It costs time for the overlaps, and exactness: each tile is normalised by
    itself, so colours may drift a little from tile to tile. `tile` is its side in pixels, 0 the library's own.

    Traps: nothing changes while the picture is no larger than one tile, which for many image VAEs is 1024 x 1024; a
    smaller `tile` does it then, with more seams.
    """

    component: str = "vae"
    tile: int = 0

    name: ClassVar[str] = "vae_tiling"
    known_as: ClassVar[tuple[str, ...]] = ("tiling", "enable_vae_tiling")

    decision: ClassVar[Decision] = Decision.TILES
    lacks: ClassVar[str] = "tiling"
    fails: ClassVar[str] = "fails in tiles of this size"

    @property
    def way(self) -> str:
        """How the dry run names calls in such tiles."""
        return f"{TILED}:{self.tile}" if self.tile else TILED

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each size of tile that changes what a VAE holds."""
        for component in facts.model.components:
            for way in sorted(facts.trace.ways(component.name)):
                name, _, tile = way.partition(":")
                if name == TILED:
                    yield cls(component.name, int(tile or 0))

    def idle(self, run: Run) -> str:
        """For tiles that change nothing or were not dry-run, which are all but the library's and half of those."""
        if not run.facts.trace.phases(self.component):
            return f"{self.component} is not called"
        found = " and ".join(str(other) for other in self.variants(run.facts) if other.component == self.component)
        if found and self.tile:
            return f"tiles of {self.tile} pixels were not tried: {found} would do"
        if found:
            return f"tiles of the library's own size change nothing at this size: {found} would do"
        if self.tile:
            return "tiles of the library's own size and of half of it change nothing at this size; no others are tried"
        return f"tiles change nothing at this size: {self.component} is given no more than one at a time"

    def apply(self, pipe: Any, device: str) -> Undo:
        """Turns tiling on; the way back gives every setting that this changed its former value."""
        part = getattr(pipe, self.component)

        def switch() -> None:
            part.enable_tiling()
            if self.tile:
                part.tile_latent_min_size = part.tile_latent_min_size * self.tile // part.tile_sample_min_size
                part.tile_sample_min_size = self.tile

        return switched([part], switch)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line, or four for tiles of another size than the library's."""
        if not self.tile:
            return (f"pipe.{self.component}.enable_tiling()",)
        return (
            f"vae = pipe.{self.component}",
            "vae.enable_tiling()",
            f"vae.tile_latent_min_size = vae.tile_latent_min_size * {self.tile} // vae.tile_sample_min_size",
            f"vae.tile_sample_min_size = {self.tile}",
        )
