"""A scene beside its map, as a PNG drawn with matplotlib.

Figures are built without pyplot, so that the caller's matplotlib state is not touched.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from geodinoseg.files.atomic import PathLike, atomic_file, check_output
from geodinoseg.plots.layout import DPI, PANEL_IN, MapPage
from geodinoseg.plots.preview import (
    class_colors,
    decimated,
    scene_colors,
)
from geodinoseg.plots.small_map import read_small_map
from geodinoseg.progress import Progress, log_step, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.rasters.scene import Scene, scene_path
from geodinoseg.redaction import redact_name

_log = logging.getLogger(__name__)


def plot_map(
    scene: PathLike | Scene,
    class_raster: PathLike | ClassRaster,
    output_png: PathLike,
    *,
    bands: Sequence[int] | None = None,
    title: str | None = None,
    caption: str | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Path:
    """Draw a scene on the left and its map on the right, with legend, areas and scale bar.

    The scene is read at reduced resolution, the map once in full, since its areas are computed
    from all pixels. Rows are in the order of the files.

    Args:
        scene: the scene, on the map's grid or overlapping it.
        class_raster: the map, or its path; `open_class_raster` opens one that refers to other
            files.
        output_png: the picture.
        bands: of the scene, one or three; None = red, green and blue, or the first bands.
        title: above the panels; None = the map's file name.
        caption: below the panels, such as the attribution of the imagery.
        overwrite: whether an existing file may be replaced.
        progress: called with the fraction of the map read.

    Returns:
        The path of the picture.

    Raises:
        SceneError: scene or map cannot be read, or they do not overlap.
        OutputError: the picture cannot be written there.

    Example:
        >>> import geodinoseg as gds
        >>> gds.plot_map("ortho.tif", "landcover.tif", "landcover.png").name
        'landcover.png'
    """
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    target = check_output(
        output_png, overwrite=overwrite, suffixes=(".png",), inputs=[scene_path(scene), raster.path]
    )
    log_step(_log, "drawing %s.", target)
    small = decimated(raster.geobox, longest_px=round(PANEL_IN * DPI))
    colors = scene_colors(scene, raster, small, bands=bands)
    shown = read_small_map(raster, small, progress=progress)
    page = MapPage(small, classes=len(raster.legend), caption=caption)
    page.add_title(title or redact_name(raster.path))
    page.add_panel(0, "Scene", colors)
    page.add_panel(1, "Map", class_colors(shown.class_ids, raster.legend, nodata=raster.nodata))
    page.add_legend(raster.legend, shown.fractions)
    page.add_scale_bar(small.pixel_size_m)
    page.add_caption()
    with atomic_file(target) as path:
        page.save(path)
    return target
