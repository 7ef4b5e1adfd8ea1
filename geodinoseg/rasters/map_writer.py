"""Rows of a map as the model produces them, and the writer of its rasters."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import GridError, OutputError
from geodinoseg.files.atomic import atomic_file
from geodinoseg.files.safe_xml import parse_xml
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import raster_attribute_table
from geodinoseg.rasters.block_rows import BlockRows
from geodinoseg.rasters.class_raster import CONFIDENCE_TAG, CONTENT_TAG, LEGEND_TAG, MAP_TAG
from geodinoseg.rasters.cog import CogLayout, cog_writer
from geodinoseg.rasters.edited_style import write_style
from geodinoseg.rasters.sidecars import check_in_place, raster_sidecars
from geodinoseg.version import __version__
from geodinoseg.windows import Window

LayerName = Literal["classes", "confidence", "probabilities"]
"""Content of a raster of a map."""

PERCENT_NODATA = 255
"""Nodata value of the confidence and probability rasters."""
PROBABILITY_STEPS = 250
"""Stored value of a probability of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRows:
    """Classes, confidence and probabilities of a window."""

    window: Window
    """Position in the raster."""
    class_ids: NDArray[Any]
    """(height, width) in the legend's dtype; the nodata value where there is no class."""
    confidence: NDArray[np.uint8] | None = None
    """(height, width) uint8, probability of the predicted class in percent; 255 is nodata."""
    probabilities: NDArray[np.uint8] | None = None
    """(classes, height, width) uint8, in 1/250; 255 is nodata."""
    disagrees: NDArray[np.bool_] | None = None
    """(height, width), True where tiles differ in their most probable class; in no raster."""

    def __post_init__(self) -> None:
        """Raise GridError if an array does not have the size of the window."""
        size = (self.window.height, self.window.width)
        for pixels in (self.class_ids, self.confidence, self.probabilities, self.disagrees):
            if pixels is not None and pixels.shape[-2:] != size:
                raise GridError(f"rows of shape {pixels.shape} do not fit {self.window}.")

    def cropped(self, window: Window) -> ClassRows:
        """The rows inside a smaller window; views, not copies."""
        moved = window.shifted_by(rows=-self.window.row_off, cols=-self.window.col_off)
        inside = (..., *moved.slices)
        return ClassRows(
            window=window,
            class_ids=self.class_ids[inside],
            confidence=None if self.confidence is None else self.confidence[inside],
            probabilities=None if self.probabilities is None else self.probabilities[inside],
            disagrees=None if self.disagrees is None else self.disagrees[inside],
        )

    def of_layer(self, name: LayerName) -> NDArray[Any]:
        """The pixels (bands, height, width) of a layer."""
        if name == "classes":
            return self.class_ids[None]
        pixels = self.confidence if name == "confidence" else self.probabilities
        if pixels is None:
            raise GridError(f"rows at {self.window} have no {name}.")
        return pixels[None] if name == "confidence" else pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One raster of a map."""

    name: LayerName
    """Content."""
    dtype: np.dtype[Any]
    """Dtype of the pixels."""
    bands: int
    """Number of bands: 1, or one per class."""


def map_layers(legend: Legend, *, confidence: bool, probabilities: bool) -> tuple[Layer, ...]:
    """The rasters of a map, class raster first."""
    layers = [Layer(name="classes", dtype=legend.dtype, bands=1)]
    percent = np.dtype(np.uint8)
    if confidence:
        layers.append(Layer(name="confidence", dtype=percent, bands=1))
    if probabilities:
        layers.append(Layer(name="probabilities", dtype=percent, bands=len(legend)))
    return tuple(layers)


class ClassRasterWriter:
    """Writes the rows of a map; made by `class_raster_writer`."""

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

    def checksums(self, name: LayerName) -> Mapping[tuple[int, int], int]:
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
    tags = {"TIFFTAG_SOFTWARE": f"geodinoseg {__version__}"} | dict(tags or {})
    layouts = {path: _class_layout(path, geobox, legend, confidence_path, tags)}
    if confidence_path:
        layouts[confidence_path] = _confidence_layout(geobox, tags)
    if probabilities_path:
        layouts[probabilities_path] = _probability_layout(geobox, legend, tags)
    named: tuple[tuple[LayerName, Path | None], ...] = (
        ("classes", path),
        ("confidence", confidence_path),
        ("probabilities", probabilities_path),
    )
    targets = {name: target for name, target in named if target}
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
                writer = cog_writer(
                    temporary[target],
                    layout,
                    target=target,
                    final_tags=lambda: _map_tags(rows) | final_tags,
                )
                rows[target] = cogs.enter_context(writer)
            yield ClassRasterWriter({name: rows[of] for name, of in targets.items()}, final_tags)
        _write_table(temporary[path], legend)
        for name, target in targets.items():
            if write_style(temporary[target].parent, target, name, legend):
                kept.add(target.with_suffix(".qml"))
    for target in layouts:
        check_in_place(target, geobox)


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
    colors = {entry.class_id: entry.rgb for entry in legend.classes if legend.dtype == np.uint8}
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


def _write_table(raster: Path, legend: Legend) -> None:
    metadata = raster.with_name(f"{raster.name}.aux.xml")
    # GDAL keeps there what a GeoTIFF cannot hold, such as some CRSs.
    root = parse_xml(metadata.read_bytes()) if metadata.exists() else None
    metadata.write_text(raster_attribute_table(legend, root=root), encoding="utf-8")
