"""How right a map is: a class raster against polygons or a label raster, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.accuracy import Accuracy, confusion_matrix
from geodinoseg.class_rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.errors import LabelError
from geodinoseg.grid import windows_over
from geodinoseg.labels.label_set import IGNORE, LabelsPath, Unlabelled, open_labels
from geodinoseg.legend import Legend
from geodinoseg.progress import Progress, no_progress

_ROWS, _COLS = 512, 8192


def evaluate_map(
    class_raster: str | PathLike[str] | ClassRaster,
    labels: LabelsPath | Sequence[LabelsPath],
    *,
    class_field: str | None = None,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: tuple[str, ...] = (),
    extent: LabelsPath | None = None,
    progress: Progress = no_progress,
) -> tuple[Accuracy, Legend]:
    """Compare every labelled pixel of a map with its label.

    Pixels without a label, and nodata of the map, do not count. For scores that hold, the labels
    must not have been used in training, nor lie beside those that were.

    Args:
        class_raster: the map.
        labels: polygons or a label raster, or several `NAME=FILE`; classes are matched to the
            map's by name or id.
        class_field: as in `open_labels`, and so are the others.
        unlabelled: what pixels without a label are.
        ignore_classes: classes of the labels to leave out.
        extent: polygons within which labelling is complete.
        progress: told the share of the map compared.

    Returns:
        The measures, and the legend whose order they are in.

    Raises:
        SceneError: the map cannot be read.
        LabelError: the labels do not fit the map, or no labelled pixel lies on it.
    """
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    source = open_labels(
        labels,
        raster.geobox,
        class_field=class_field,
        unlabelled=unlabelled,
        ignore_classes=ignore_classes,
        legend=raster.legend,
        extent=extent,
    )
    size = {"height": raster.height, "width": raster.width}
    windows = list(windows_over(**size, rows=_ROWS, cols=_COLS))
    matrix = np.zeros((len(raster.legend),) * 2, dtype=np.int64)
    with raster.reader() as reader:
        for done, window in enumerate(windows, start=1):
            mapped = _channels(reader.read(window), raster.legend)
            matrix += confusion_matrix(source.read(window), mapped, len(raster.legend))
            progress(done / len(windows), "comparing")
    if not matrix.any():
        raise LabelError(
            f"{source.path}: no labelled pixel lies where {raster.path} holds a class; give labels "
            f"of the same place."
        )
    return Accuracy(matrix), raster.legend


def _channels(class_ids: NDArray[Any], legend: Legend) -> NDArray[np.int64]:
    """Positions in the legend; IGNORE where an id is none of its classes, such as nodata."""
    order = np.argsort(legend.class_ids)
    known = legend.class_ids[order]
    place = np.searchsorted(known, class_ids).clip(max=len(known) - 1)
    return np.where(known[place] == class_ids, order[place], IGNORE)
