"""Settings of polygons that are written after a segmentation, validated on construction."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from geodinoseg.errors import GridError


def check_sizes(**sizes: float | None) -> None:
    """Raise GridError, with its name, for a size that is negative or not finite; None is valid."""
    for name, size in sizes.items():
        if size is not None and not (math.isfinite(size) and size >= 0):
            raise GridError(f"{name} is {size}: give 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonSettings:
    """Settings of the polygons that `segment_scene` writes, as for `write_polygons`."""

    min_area_m2: float = 0.0
    """Polygons below this area are merged into the neighbour with the longest common border."""
    fill_holes_m2: float = 0.0
    """Nodata holes below this area are filled in the same way."""
    simplify_px: float = 0.0
    """Tolerance of the outline, in pixels; 0 = outlines follow the pixels."""
    simplify_m: float | None = None
    """Tolerance in metres; replaces simplify_px."""

    def __post_init__(self) -> None:
        """Raise GridError for a size below 0."""
        check_sizes(**asdict(self))


PLAIN_POLYGONS = PolygonSettings()
"""No merging, filling or simplification."""
