"""What is known about the pixels of a scene: class channels on its grid, from polygons or a raster.

Nothing is burnt or read until a window is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.class_mapping import Unlabelled
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.features import LabelFeatures, read_class_files, read_features
from geodinoseg.labels.labels import Labels, LabelSource
from geodinoseg.labels.layer_styles import raster_style
from geodinoseg.labels.legend_file import read_legend_file
from geodinoseg.labels.paths import ClassFiles, LabelFiles, LabelsPath, label_files
from geodinoseg.labels.polygon_source import polygon_source, polygons_on
from geodinoseg.labels.raster_source import is_raster, open_label_raster, raster_source
from geodinoseg.labels.shared_legend import FoundLabels, in_one_legend
from geodinoseg.labels.styles import ClassStyle, StyledClass
from geodinoseg.labels.vector_layer import has_vector_layer
from geodinoseg.legend import Legend
from geodinoseg.rasters.class_raster import LEGEND_TAG, ClassRaster

__all__ = [
    "IGNORE",
    "LabelSource",
    "Labels",
    "LabelsPath",
    "Unlabelled",
    "open_label_set",
    "open_labels",
]


def open_labels(
    path: LabelsPath | ClassFiles | Sequence[LabelsPath],
    geobox: GeoBox,
    *,
    class_field: str | None = None,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: Sequence[str] = (),
    legend: Legend | None = None,
    extent: LabelsPath | None = None,
    legend_file: LabelsPath | None = None,
    allow_external: bool = False,
) -> Labels:
    """Labels for a scene, from polygons in any usual format or from a label raster.

    Polygons are brought into the scene's CRS; a pixel belongs to the polygon over its centre,
    and where polygons overlap the later one in the file counts. Polygons without a class are
    areas to ignore. Classes are those that reach the scene, and a class has the same id in every
    scene of one file. A label raster on another grid is resampled to the nearest pixel, and all
    classes of its legend count. Colours come from the legend file, else from the layer's own QGIS
    style, else from the colour table, else from the palette.

    Args:
        path: a vector file (`file.gpkg|layername=NAME` picks one of several layers), a raster,
            a folder with a vector file a class, or several `NAME=FILE`.
        geobox: the scene.
        class_field: column with class names or numbers; of polygons only. Found unasked where it
            is called class, class_id, class_name or label.
        unlabelled: what pixels without a label are: unknown, or the class background.
        ignore_classes: names of classes to be taken for unknown.
        legend: the classes to use, such as a model's; all labels must fit it, and classes to
            ignore need not occur.
        extent: polygons within which labelling is complete: there pixels without a label are
            background, elsewhere they are unknown, whatever `unlabelled` says.
        legend_file: numbers, names and colours of classes; see `read_legend_file`. Those that do
            not occur are left out.
        allow_external: whether files may be of any kind that GDAL knows, and reach where they
            like; others are plain polygon files and plain rasters.

    Raises:
        LabelError: the file is missing, empty or unreadable, lies elsewhere, holds no polygons,
            no such column, classes that contradict each other or the legend, or fewer than two.
    """
    given = [path] if isinstance(path, str | os.PathLike | ClassFiles) else list(path)
    files = label_files(given)
    if len(files) != 1:
        raise LabelError(f"{len(files)} label files for one raster; give one, or NAME=FILE each.")
    return open_label_set(
        files,
        [geobox],
        class_field=class_field,
        unlabelled=unlabelled,
        ignore_classes=ignore_classes,
        legend=legend,
        extent=extent,
        legend_file=legend_file,
        allow_external=allow_external,
    )[0]


def open_label_set(
    paths: Sequence[LabelsPath | ClassFiles],
    geoboxes: Sequence[GeoBox],
    *,
    class_field: str | None = None,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: Sequence[str] = (),
    legend: Legend | None = None,
    extent: LabelsPath | None = None,
    legend_file: LabelsPath | None = None,
    allow_external: bool = False,
) -> list[Labels]:
    """Labels for several scenes with one legend: all classes that reach one of them.

    Args:
        paths: a file for each scene; it may be the same for all.
        geoboxes: the scenes.
        class_field: as in `open_labels`, and so are the others.
        unlabelled: what pixels without a label are.
        ignore_classes: names of classes to be taken for unknown; each occurs in one file at least.
        legend: the classes to use.
        extent: of complete labelling; it reaches one of the scenes at least.
        legend_file: numbers, names and colours of classes.
        allow_external: whether files may be of any kind that GDAL knows.

    Raises:
        LabelError: as in `open_labels`, or a class has different names in two files.
    """
    style = ClassStyle() if legend_file is None else read_legend_file(os.fspath(legend_file))
    reader = _Reader(
        class_field=class_field,
        ignore_classes=tuple(ignore_classes),
        legend_names=style.names_by_id() if legend is None else {},
        is_named_by_style=legend is None,
        allow_external=allow_external,
    )
    # The same file for many scenes is read once.
    layers = cache(reader.layers)
    found = [
        reader.found(label_files([path])[0], geobox, layers)
        for path, geobox in zip(paths, geoboxes, strict=True)
    ]
    return in_one_legend(
        found,
        unlabelled=unlabelled,
        ignore_classes=ignore_classes,
        legend=legend,
        legend_style=style,
        extent=None if extent is None else os.fspath(extent),
        allow_external=allow_external,
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """How files are read."""

    class_field: str | None
    ignore_classes: tuple[str, ...]
    legend_names: Mapping[int, str]
    is_named_by_style: bool
    """Whether numbers without a name take that of the layer's style."""
    allow_external: bool
    """Whether files may be of any kind that GDAL knows."""

    def found(
        self, files: LabelFiles, geobox: GeoBox, layers: Callable[[LabelFiles], list[LabelFeatures]]
    ) -> FoundLabels:
        external = {"allow_external": self.allow_external}
        if (
            isinstance(files, str)
            and is_raster(files, **external)
            and not has_vector_layer(files, **external)
        ):
            return self._found_raster(files, geobox)
        features = layers(files)
        placed = polygons_on(features, geobox, name=str(files))
        return FoundLabels(
            path=str(files),
            geobox=geobox,
            classes=replace(features[0].classes, class_ids=placed.class_ids),
            source_of=partial(polygon_source, placed),
            styles=tuple(layer.style for layer in features),
        )

    def layers(self, files: LabelFiles) -> list[LabelFeatures]:
        """The polygons of a file, or of the files of each class."""
        if isinstance(files, ClassFiles):
            return read_class_files(
                files,
                ignore_classes=self.ignore_classes,
                legend_names=self.legend_names,
                allow_external=self.allow_external,
            )
        features = read_features(
            files,
            class_field=self.class_field,
            ignore_classes=self.ignore_classes,
            legend_names=self.legend_names,
            is_named_by_style=self.is_named_by_style,
            allow_external=self.allow_external,
        )
        return [features]

    def _found_raster(self, path: str, geobox: GeoBox) -> FoundLabels:
        style = raster_style(path)
        raster, classes = open_label_raster(
            path,
            ignore_classes=self.ignore_classes,
            legend_names=self.legend_names,
            style_names=style.names_by_id() if self.is_named_by_style else None,
            allow_external=self.allow_external,
        )
        return FoundLabels(
            path=path,
            geobox=geobox,
            classes=classes,
            source_of=partial(raster_source, raster, geobox),
            styles=(style, _own_style(raster)),
        )


def _own_style(raster: ClassRaster) -> ClassStyle:
    """The colours that a raster brings; those of our palette are only for want of any."""
    names = {entry.class_id: entry.name for entry in raster.legend}
    unasked = Legend.of_names(names).by_id()
    return ClassStyle(
        tuple(
            StyledClass(class_id=entry.class_id, name=entry.name, color=entry.color)
            for entry in raster.legend
            if LEGEND_TAG in raster.tags or entry.color != unasked[entry.class_id].color
        )
    )
