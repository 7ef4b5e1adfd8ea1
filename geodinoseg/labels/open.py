"""Opens what was given as labels: polygons, one file per class, or a class raster.

Nothing is rasterized or read by window until the labels are asked for one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from geodinoseg.errors import LabelError
from geodinoseg.files.arguments import listed
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.coverage import coverage_of
from geodinoseg.labels.features import LabelFeatures, read_class_files, read_features
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import ClassFiles, GivenLabels, LabelFiles, label_files
from geodinoseg.labels.polygon_source import polygon_source, scene_polygons
from geodinoseg.labels.raster_source import is_raster, open_label_raster, raster_source
from geodinoseg.labels.shared_legend import RawLabels, share_legend
from geodinoseg.labels.vector_layer import has_vector_layer
from geodinoseg.legend import Legend
from geodinoseg.rasters.class_raster import LEGEND_TAG
from geodinoseg.rasters.class_style import style_of_legend
from geodinoseg.rasters.legend_sources import raster_style, warn_of_lost_names

_log = logging.getLogger(__name__)


def open_labels(
    path: GivenLabels | Sequence[GivenLabels],
    geobox: GeoBox,
    *,
    options: LabelOptions | None = None,
    legend: Legend | None = None,
) -> Labels:
    """Labels for a scene, from polygons in any usual format or from a label raster.

    Polygons are transformed to the scene's CRS; a pixel belongs to the polygon that covers its
    centre (or to one that touches it, see `LabelOptions`), and where polygons overlap the later one
    in the file counts. A warning counts the polygons that cover no pixel's centre. Polygons without
    a class are areas to ignore. Classes are those that intersect the scene, and a class has the
    same id in every scene of one file. A label raster on another grid is resampled to the nearest
    pixel, and all classes of its legend count. Colours come from the legend file, else from the
    layer's own QGIS style, else from the colour table, else from the palette.

    Args:
        path: a vector file (`file.gpkg|layername=NAME` picks one of several layers), a raster,
            a GeoDataFrame, a folder with one vector file per class, several `NAME=FILE`, or a
            dictionary of the file or GeoDataFrame of each class.
        geobox: the scene.
        options: how the files are read.
        legend: the classes to use, such as a model's; all labels must match it, and classes to
            ignore need not occur.

    Raises:
        LabelError: the file is missing, empty or unreadable, lies outside the scene, holds no
            polygons, no class column, classes that contradict each other or the legend, or fewer
            than two; or no polygon of a class covers a pixel's centre.
    """
    files = label_files(listed(path))
    if len(files) != 1:
        raise LabelError(f"{len(files)} label files for one raster; give one, or NAME=FILE each.")
    return open_label_set(files, [geobox], options=options, legend=legend)[0]


def open_label_set(
    paths: Sequence[GivenLabels],
    geoboxes: Sequence[GeoBox],
    *,
    options: LabelOptions | None = None,
    legend: Legend | None = None,
) -> list[Labels]:
    """Labels for several scenes with one legend: all classes that intersect one of them.

    There is a path for each scene, which may be the same for all. Each class to ignore must occur
    in one file at least, and the extent intersect one scene at least. Otherwise as `open_labels`.

    Raises:
        LabelError: as in `open_labels`, or a class has different names in two files.
    """
    options = options or LabelOptions()
    style = options.legend_style()
    reader = _LabelReader(
        options=options,
        legend_names=style.names_by_id() if legend is None else {},
        is_named_by_style=legend is None,
    )
    # The same file for many scenes is read once.
    read_layers = cache(reader.layers)
    raw = [
        reader.read(label_files([path])[0], geobox, read_layers)
        for path, geobox in zip(paths, geoboxes, strict=True)
    ]
    labels = share_legend(raw, options, legend=legend, legend_style=style)
    for file, nameless in {one.path: one.nameless for one in raw if one.nameless}.items():
        warn_of_lost_names(file, nameless)
    return labels


@dataclass(frozen=True, kw_only=True)
class _LabelReader:
    """Reads label files, all in the same way."""

    options: LabelOptions
    legend_names: Mapping[int, str]
    is_named_by_style: bool
    """Whether class numbers without a name take that of the layer's style."""

    def read(
        self,
        files: LabelFiles,
        geobox: GeoBox,
        read_layers: Callable[[LabelFiles], list[LabelFeatures]],
    ) -> RawLabels:
        if isinstance(files, str) and self._is_class_raster(files):
            return self._read_raster(files, geobox)
        layers = read_layers(files)
        polygons = scene_polygons(layers, geobox, name=str(files))
        return RawLabels(
            path=str(files),
            geobox=geobox,
            classes=replace(
                layers[0].classes,
                class_ids=polygons.class_ids,
                is_unknown=np.zeros(len(polygons.class_ids), dtype=np.bool_),
            ),
            source_of=partial(
                polygon_source, polygons.polygons, all_touched=self.options.all_touched
            ),
            known=frozenset(name for layer in layers for name in layer.classes.occurring()),
            coverage=None if self.options.all_touched else coverage_of(polygons, geobox),
            styles=tuple(layer.style for layer in layers),
        )

    def layers(self, files: LabelFiles) -> list[LabelFeatures]:
        """The polygons of a file, or of the files of each class."""
        if isinstance(files, ClassFiles):
            self.options.warn_of_class_field(files.name, "each file holds one class")
            return read_class_files(files, self.options, legend_names=self.legend_names)
        features = read_features(
            files,
            self.options,
            legend_names=self.legend_names,
            is_named_by_style=self.is_named_by_style,
        )
        return [features]

    def _is_class_raster(self, path: str) -> bool:
        return is_raster(path, self.options) and not has_vector_layer(
            path, allow_external=self.options.allow_external
        )

    def _read_raster(self, path: str, geobox: GeoBox) -> RawLabels:
        self.options.warn_of_class_field(path, "a raster has no columns")
        if self.options.all_touched:
            _log.warning("%s: is a raster; --all-touched applies to polygons only.", path)
        style = raster_style(path)
        raster, classes = open_label_raster(
            path,
            self.options,
            legend_names=self.legend_names,
            style_names=style.names_by_id() if self.is_named_by_style else None,
        )
        told = {**style.names_by_id(), **self.legend_names}
        is_nameless = self.is_named_by_style and not (raster.is_named or told)
        own_style = style_of_legend(raster.legend, keep_palette=LEGEND_TAG in raster.tags)
        return RawLabels(
            path=path,
            geobox=geobox,
            classes=classes,
            source_of=partial(raster_source, raster, geobox),
            styles=(style, own_style),
            nameless=raster.legend if is_nameless else None,
        )
