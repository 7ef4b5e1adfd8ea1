"""Draws docs/pictures/polygons_across_a_cut.png: outlines before and after simplification.

    python tests/benchmarks/polygons_picture.py

The map is traced in bands of 64 rows, as a very wide raster would be; the cuts are drawn in.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import shapely

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

BAND_ROWS, HEIGHT, WIDTH = 64, 128, 150
TOLERANCE_PX = 1.5


def main() -> None:
    """Trace, draw, save."""
    import matplotlib as mpl

    mpl.use("Agg")
    from coverages import trace
    from matplotlib import pyplot as plt

    from geodinoseg.legend import PALETTE

    array = map_of_fields()
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    ways = {"as the pixels run": 0.0, f"--simplify {TOLERANCE_PX}": TOLERANCE_PX}
    for axis, (title, tolerance) in zip(axes, ways.items(), strict=True):
        features = trace(array, BAND_ROWS, simplify_px=tolerance)
        polygons = [polygon for _, polygon, _ in features]
        assert shapely.coverage_is_valid(polygons)
        # Large ones first, so that what lies in their holes is drawn over them.
        for class_id, polygon, _ in sorted(features, key=lambda feature: -feature[2]):
            draw(axis, polygon, PALETTE[class_id])
        axis.axhline(BAND_ROWS, color="black", linewidth=0.8, linestyle=(0, (5, 4)))
        vertices = int(shapely.get_num_coordinates(polygons).sum())
        axis.set_title(f"{title}: {len(polygons)} polygons, {vertices:,} vertices", fontsize=10)
        axis.set(xlim=(35, 115), ylim=(92, 36), aspect="equal", xticks=[], yticks=[])
    path = ROOT / "docs/pictures/polygons_across_a_cut.png"
    figure.savefig(path, dpi=110, bbox_inches="tight")


def map_of_fields() -> np.ndarray:
    """(height, width) uint8: the nearest of some points, with frayed borders and specks."""
    rng = np.random.default_rng(8)
    points = rng.uniform((0, 0), (HEIGHT, WIDTH), (34, 2))
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    wave = np.sin(cols / 9.0) * 3
    distance = np.hypot(rows + wave - points[:, :1, None], cols - points[:, 1:, None])
    distance += rng.normal(0, 0.5, distance.shape)
    array = (distance.argmin(axis=0) % 6).astype(np.uint8)
    speck = rng.random(array.shape) < 0.002
    array[speck] = rng.integers(0, 6, int(speck.sum()))
    return array


def draw(axis, polygon: shapely.Polygon, color: str) -> None:
    """Fill a polygon and mark its vertices."""
    xs, ys = polygon.exterior.xy
    axis.fill(xs, ys, facecolor=color, edgecolor="white", linewidth=1.0)
    axis.plot(xs, ys, "o", color="black", markersize=1.4)


if __name__ == "__main__":
    main()
