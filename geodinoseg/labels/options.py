"""How label files are read: plain values, checked when built."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Literal, get_args

from geodinoseg.errors import LabelError
from geodinoseg.files.arguments import path_text
from geodinoseg.labels.paths import Areas, LabelsPath, VectorFile, areas_file
from geodinoseg.rasters.class_style import ClassStyle
from geodinoseg.rasters.legend_file import read_legend_file

logger = logging.getLogger(__name__)

Unlabelled = Literal["ignore", "background"]
"""What pixels without a label are: unknown, or the class background."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How label files are read; an unknown choice is a LabelError."""

    class_field: str | None = None
    """Column with class names or numbers, of polygons only. None: class, class_id, class_name or
    label, the first that exists."""
    unlabelled: Unlabelled = "ignore"
    """What pixels without a label are."""
    ignore_classes: tuple[str, ...] = ()
    """Classes, by name or number, whose labels are treated as unknown."""
    renames: tuple[tuple[str, str], ...] = ()
    """Pairs of a class of the labels, by name or number, and the class of the map, by name or id,
    that it is mapped to; only for labels that are compared with a map."""
    extent: Areas | None = None
    """File or GeoDataFrame of polygons within which labelling is complete: there pixels without a
    label are background, elsewhere they are unknown, whatever `unlabelled` says."""
    all_touched: bool = False
    """Whether a pixel belongs to a polygon that touches it (to the last of them where several do)
    rather than to the polygon that covers its centre."""
    legend_file: LabelsPath | None = None
    """File with numbers, names and colours of classes, in any form that `read_legend_file` takes;
    classes that do not occur are left out."""
    allow_external: bool = False
    """Whether label files and image chips may be of any kind that GDAL reads, and refer to other
    files and addresses; otherwise they must be plain vector files and plain rasters."""

    def __post_init__(self) -> None:
        if self.unlabelled not in get_args(Unlabelled):
            raise LabelError(f"unlabelled={self.unlabelled!r}: give ignore or background.")
        if self.legend_file is not None:
            path_text(self.legend_file, "legend_file", error=LabelError)
        if self.extent is not None:
            areas_file(self.extent, "extent")

    @property
    def extent_file(self) -> VectorFile | None:
        """The extent as a file or as a table."""
        return None if self.extent is None else areas_file(self.extent, "extent")

    def legend_style(self) -> ClassStyle:
        """Names, numbers and colours of the legend file; an empty style without one."""
        if self.legend_file is None:
            return ClassStyle()
        return read_legend_file(os.fspath(self.legend_file))

    @property
    def has_background(self) -> bool:
        """Whether pixels without a label are background, in the extent where there is one."""
        return self.unlabelled == "background" or self.extent is not None

    def warn_of_class_field(self, path: str, why: str) -> None:
        """Warn that a class field was given for labels without fields."""
        if self.class_field is not None:
            logger.warning("%s: --class-field has no effect: %s.", path, why)
