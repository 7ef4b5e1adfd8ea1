"""Settings of the polygons that follow a segmentation: plain values, validated on construction."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from geodinoseg.errors import GridError


def check_sizes(**sizes: float | None) -> None:
    """Raise GridError for a size below 0 or not finite, by name; None is no size."""
    for name, size in sizes.items():
        if size is not None and not (math.isfinite(size) and size >= 0):
            raise GridError(f"{name} is {size}: give 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonSettings:
    """How the polygons of a map are drawn by `segment_scene`, as `write_polygons` takes it."""

    min_area_m2: float = 0.0
    """Polygons below this area are merged with the neighbour of the longest border."""
    fill_holes_m2: float = 0.0
    """Holes of nodata below this area are filled as small polygons are merged."""
    simplify_px: float = 0.0
    """Distance, in pixels, by which an outline may move; 0 = follow the pixels."""
    simplify_m: float | None = None
    """The same in metres; replaces simplify_px."""

    def __post_init__(self) -> None:
        """Raise GridError for a size below 0."""
        check_sizes(**asdict(self))


PLAIN_POLYGONS = PolygonSettings()
"""Every pixel as it is."""
