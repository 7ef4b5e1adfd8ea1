"""The writer of a map: its rasters, their tags, styles and attribute tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import OutputError
from geodinoseg.files.atomic import atomic_file
from geodinoseg.files.safe_xml import parse_xml
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import confidence_qml, raster_attribute_table, raster_qml
from geodinoseg.rasters.class_raster import (
    CONFIDENCE_TAG,
    CONTENT_TAG,
    LEGEND_TAG,
    MAP_TAG,
    ClassRaster,
)
from geodinoseg.rasters.class_reader import PixelType
from geodinoseg.rasters.cog import CogLayout, cog_writer
from geodinoseg.rasters.edited_style import replace_style
from geodinoseg.rasters.legend_sources import raster_style
from geodinoseg.rasters.map_rows import (
    PERCENT_NODATA,
    PROBABILITY_STEPS,
    BlockRows,
    Checksums,
    ClassRows,
    LayerName,
)
from geodinoseg.rasters.sidecars import Header, check_in_place, raster_sidecars
from geodinoseg.rasters.source import RasterSource
from geodinoseg.version import __version__
from geodinoseg.windows import Window


class ClassRasterWriter:
    """Writes the rows of a map; made by `class_raster_writer`."""

    raster: ClassRaster
    """The class raster, when the block has ended well: as `open_class_raster` would read it."""

    def __init__(self, rasters: Mapping[LayerName, BlockRows], final_tags: dict[str, str]) -> None:
        self._rasters = rasters
        self.final_tags = final_tags
        """GDAL metadata of all files that is only known when all pixels are written."""

    def write(self, rows: ClassRows) -> None:
        """Write the next rows of a column panel, or the first rows of another.

        Args:
            rows: of any height. They continue the previous rows downwards, with the same columns,
                or start at a row and a column that are multiples of 512; they end at such a column
                or at the last one of the raster. Anything else is a GridError.
        """
        for name in self._rasters:
            self.write_layer(name, rows.window, rows.of_layer(name))

    def write_layer(self, name: LayerName, window: Window, pixels: NDArray[Any]) -> None:
        """Write rows (bands, height, width) of a single layer, in the order of `write`."""
        self._rasters[name].write(window, pixels)

    def checksums(self, name: LayerName) -> Checksums:
        """Checksums of the blocks written of a layer, as `BlockRows.checksums`."""
        return self._rasters[name].checksums


@contextmanager
def class_raster_writer(
    path: Path,
    geobox: GeoBox,
    legend: Legend,
    *,
    confidence_path: Path | None = None,
    probabilities_path: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[ClassRasterWriter]:
    """Write a map; on success all its files appear, on an error none.

    Existing files are replaced, except for a style (`.qml`) that the user edited and that still
    fits. The class raster gets the sidecars `<path>.aux.xml` and `<stem>.qml`. The writer holds one
    block row of a panel in memory.

    Args:
        path: the class raster, a COG in the legend's dtype.
        geobox: georeferencing and size.
        legend: stored in the file.
        confidence_path: a COG of uint8 percent, nodata 255, with a `.qml`; None for none.
        probabilities_path: a COG of one uint8 band per class, in 1/250, nodata 255; None for none.
        tags: GDAL metadata of all files.

    Raises:
        OutputError: a file cannot be written, two have one name, or pixels are missing at the end.
    """
    _check_distinct(path, confidence_path, probabilities_path)
    was_styled = path.with_suffix(".qml").is_file()
    tags = {"TIFFTAG_SOFTWARE": f"geodinoseg {__version__}"} | dict(tags or {})
    targets: dict[LayerName, Path] = {"classes": path}
    layouts = {path: _class_layout(path, geobox, legend, confidence_path, tags)}
    if confidence_path:
        targets["confidence"] = confidence_path
        layouts[confidence_path] = _confidence_layout(geobox, tags)
    if probabilities_path:
        targets["probabilities"] = probabilities_path
        layouts[probabilities_path] = _probability_layout(geobox, legend, tags)
    kept: set[Path] = set()
    with ExitStack() as outputs:
        # Exited in reverse order: the class raster, which names the confidence raster, comes last.
        temporary = {
            target: outputs.enter_context(
                atomic_file(target, stale_sidecars=_stale(raster_sidecars(target), kept))
            )
            for target in layouts
        }
        with ExitStack() as cogs:
            rows: dict[Path, BlockRows] = {}
            final_tags: dict[str, str] = {}
            for target, layout in layouts.items():
                cog = cog_writer(
                    temporary[target],
                    layout,
                    target=target,
                    final_tags=lambda: _map_tags(rows) | final_tags,
                )
                rows[target] = cogs.enter_context(cog)
            writer = ClassRasterWriter({name: rows[of] for name, of in targets.items()}, final_tags)
            yield writer
        _write_table(temporary[path], legend)
        for name, target in targets.items():
            if _write_style(temporary[target].parent, target, name, legend):
                kept.add(target.with_suffix(".qml"))
    headers = {target: check_in_place(target, geobox) for target in layouts}
    shown = _shown_legend(path, legend, was_styled=was_styled)
    writer.raster = _described(path, shown, headers[path])


def _check_distinct(*paths: Path | None) -> None:
    stems: set[Path] = set()
    for path in paths:
        if path is None:
            continue
        if path.with_suffix("") in stems:
            raise OutputError(
                f"{path}: another output of this run has this name and would share its style "
                f"file (.qml); give each output a name of its own."
            )
        stems.add(path.with_suffix(""))


def _class_layout(
    path: Path,
    geobox: GeoBox,
    legend: Legend,
    confidence_path: Path | None,
    tags: Mapping[str, str],
) -> CogLayout:
    own = {
        CONTENT_TAG: "classes",
        LEGEND_TAG: json.dumps(legend.to_json(), ensure_ascii=False),
    }
    if confidence_path:
        own[CONFIDENCE_TAG] = Path(os.path.relpath(confidence_path, path.parent)).as_posix()
    # QGIS 3.22 would list all 65,536 entries of a uint16 colour table.
    colors = legend.rgb_by_id if legend.dtype == np.uint8 else {}
    return CogLayout(
        geobox=geobox,
        dtype=legend.dtype,
        nodata=legend.nodata,
        band_names=("class",),
        tags={**tags, **own},
        colors=colors,
    )


def _confidence_layout(geobox: GeoBox, tags: Mapping[str, str]) -> CogLayout:
    return CogLayout(
        geobox=geobox,
        dtype=np.dtype(np.uint8),
        nodata=PERCENT_NODATA,
        band_names=("confidence",),
        tags={**tags, CONTENT_TAG: "confidence"},
        unit="percent",
    )


def _probability_layout(geobox: GeoBox, legend: Legend, tags: Mapping[str, str]) -> CogLayout:
    return CogLayout(
        geobox=geobox,
        dtype=np.dtype(np.uint8),
        nodata=PERCENT_NODATA,
        band_names=legend.names,
        tags={**tags, CONTENT_TAG: "probabilities"},
        scale=1 / PROBABILITY_STEPS,
        unit="probability",
    )


def _map_tags(rows: Mapping[Path, BlockRows]) -> dict[str, str]:
    """The tag that says which rasters are of one map: it follows from the pixels of all of them."""
    checksums = [sorted(layer.checksums.items()) for layer in rows.values()]
    return {MAP_TAG: hashlib.sha256(json.dumps(checksums).encode()).hexdigest()[:32]}


def _stale(sidecars: Sequence[Path], kept: AbstractSet[Path]) -> Iterator[Path]:
    """The old files that go, when it is known which of them are kept."""
    yield from (sidecar for sidecar in sidecars if sidecar not in kept)


def _write_style(folder: Path, target: Path, name: LayerName, legend: Legend) -> bool:
    """Write the `.qml` of a raster; True if the existing one was edited and stays instead."""
    style = target.with_suffix(".qml")
    fresh = _fresh_style(name, legend)
    if style.is_file():
        return replace_style(folder, target, name, legend, fresh=fresh)
    if fresh:
        (folder / style.name).write_text(fresh, encoding="utf-8")
    return False


def _fresh_style(name: LayerName, legend: Legend) -> str:
    """The style of a raster; probabilities have none of ours."""
    if name == "classes":
        return raster_qml(legend)
    return confidence_qml() if name == "confidence" else ""


def _shown_legend(path: Path, legend: Legend, *, was_styled: bool) -> Legend:
    """The legend in the colours of the `.qml` beside the raster, which may be the user's."""
    if was_styled:
        return legend.recolored(raster_style(path).colors_by_id())
    return legend.recolored({entry.class_id: entry.color.lower() for entry in legend.classes})


def _described(path: Path, legend: Legend, header: Header) -> ClassRaster:
    confidence = header.tags.get(CONFIDENCE_TAG)
    nodata = legend.nodata
    return ClassRaster(
        source=RasterSource.of(path),
        geobox=header.geobox,
        legend=legend,
        is_named=True,
        pixel_type=PixelType(
            stored=legend.dtype, stored_nodata=nodata, dtype=legend.dtype, nodata=nodata
        ),
        block_shape=header.block_shape,
        confidence_path=None if confidence is None else path.parent / confidence,
        tags=header.tags,
    )


def _write_table(raster: Path, legend: Legend) -> None:
    metadata = raster.with_name(f"{raster.name}.aux.xml")
    # GDAL keeps there what a GeoTIFF cannot hold, such as some CRSs.
    root = parse_xml(metadata.read_bytes()) if metadata.exists() else None
    metadata.write_text(raster_attribute_table(legend, root=root), encoding="utf-8")
