"""A VAE works on one tile after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan import pieces
from memplan.facts import TILED, Facts
from memplan.run import Run
from memplan.strategy import Decision, Switch, Undo

from .live.settings import changed
from .rules.other_way import OtherWay


@dataclass(frozen=True)
class VaeTiling(OtherWay):
    """A VAE encodes and decodes overlapping tiles, one after the other, and blends them.

    It lowers the peak of the decode to about that of one tile and the finished picture, where the decode is the
    highest peak: large pictures and videos. It costs time for the overlaps, and exactness: each tile is normalised by
    itself, so colours may drift a little from tile to tile. `tile` is the longer side in pixels, 0 the library's own;
    the overlap grows with it. A larger tile holds more and has fewer seams. The library's own is weighed, and half of
    it where tiles are square; a plan that names another size has a dry run of its own made.

    Traps: nothing changes while the picture is no larger than one tile, which for many image VAEs is 1024 x 1024; a
    smaller `tile` does it then, with more seams. Tiles come in multiples that the VAE decides, by which they meet.
    """

    component: str = "vae"
    tile: int = 0

    name: ClassVar[str] = "vae_tiling"
    known_as: ClassVar[tuple[str, ...]] = ("tiling", "enable_vae_tiling")
    midway: ClassVar[bool] = True

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

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Switch]:
        """Tiles of the size that is asked for."""
        tile = settings.get("tile", 0)
        return {f"{TILED}:{tile}": partial(_in_tiles, tile=tile)} if tile else {}

    def idle(self, run: Run) -> str:
        """For tiles that change nothing, or were not dry-run."""
        if not run.facts.trace.phases(self.component):
            return f"{self.component} is not called"
        found = " and ".join(str(other) for other in self.variants(run.facts) if other.component == self.component)
        instead = f": {found} would do" if found else ""
        if self.tile:
            tiles = f"tiles of {self.tile} pixels change nothing at this size"
            return f"{tiles}, or need a dry run of their own, which {self.name} has made where a plan names it{instead}"
        if found:
            return f"tiles of the library's own size change nothing at this size{instead}"
        return f"tiles change nothing at this size: {self.component} is given no more than one at a time"

    def apply(self, pipe: Any, device: str) -> Undo:
        """Turns tiling on; the way back gives every setting that this changed its former value.

        Raises BadInput for a size of tiles that the VAE cannot have.
        """
        return _in_tiles(getattr(pipe, self.component), self.tile)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line, or the loop that scales all that tiles are made of."""
        if not self.tile:
            return (f"pipe.{self.component}.enable_tiling()",)
        return (
            f"vae = pipe.{self.component}",
            "vae.enable_tiling()",
            'sizes = {k: v for k, v in vars(vae).items() if k.startswith("tile_") and "factor" not in k}',
            f"sizes = {{k: v for k, v in sizes.items() if k.endswith({pieces.PIXELS})}}",
            'side = max(v for k, v in sizes.items() if k.startswith("tile_sample_min_"))',
            "for name, size in sizes.items():",
            f"    setattr(vae, name, size * {self.tile} // side)",
        )


def _in_tiles(part: Any, tile: int) -> Undo:
    """Has `part` work in tiles; the value gives its settings their former values."""

    def settings() -> Mapping[str, int]:
        part.enable_tiling()
        return pieces.tiles(part, tile) if tile else {}

    return changed(part, settings)
