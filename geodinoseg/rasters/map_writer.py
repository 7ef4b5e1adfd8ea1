"""Rows of a map as they come from the model, and the rasters they are written to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import GridError, OutputError
from geodinoseg.files.atomic import atomic_file
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.qgis.styles import confidence_qml, raster_attribute_table, raster_qml
from geodinoseg.rasters.block_rows import BlockRows
from geodinoseg.rasters.class_raster import CONFIDENCE_TAG, CONTENT_TAG, LEGEND_TAG
from geodinoseg.rasters.cog import CogLayout, cog_writer
from geodinoseg.version import __version__
from geodinoseg.windows import Window

LayerName = Literal["classes", "confidence", "probabilities"]
"""What a raster of a map holds."""

PERCENT_NODATA = 255
"""Nodata of confidence and of probabilities."""
PROBABILITY_STEPS = 250
"""A probability of 1 as it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRows:
    """What the model says of a window."""

    window: Window
    """Where, in pixels of the raster."""
    class_ids: NDArray[Any]
    """(height, width) in the legend's dtype; its nodata value where there is no class."""
    confidence: NDArray[np.uint8] | None = None
    """(height, width) uint8, probability of the winning class in percent; 255 is nodata."""
    probabilities: NDArray[np.uint8] | None = None
    """(classes, height, width) uint8, in 1/250; 255 is nodata."""

    def __post_init__(self) -> None:
        """Refuse arrays of another size than the window's."""
        size = (self.window.height, self.window.width)
        for pixels in (self.class_ids, self.confidence, self.probabilities):
            if pixels is not None and pixels.shape[-2:] != size:
                raise GridError(f"rows of {pixels.shape} px do not fit {self.window}.")

    def cropped(self, window: Window) -> ClassRows:
        """The part of the rows inside a window of theirs; views, not copies."""
        moved = window.shifted_by(rows=-self.window.row_off, cols=-self.window.col_off)
        inside = (..., *moved.slices)
        return ClassRows(
            window=window,
            class_ids=self.class_ids[inside],
            confidence=None if self.confidence is None else self.confidence[inside],
            probabilities=None if self.probabilities is None else self.probabilities[inside],
        )

    def of_layer(self, name: LayerName) -> NDArray[Any]:
        """(bands, height, width) of a layer."""
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
    """What it holds."""
    dtype: np.dtype[Any]
    """Of its pixels."""
    bands: int
    """1, or one a class."""


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
    """Takes the rows of a map; made by `class_raster_writer`."""

    def __init__(self, rasters: Mapping[LayerName, BlockRows]) -> None:
        self._rasters = rasters

    def write(self, rows: ClassRows) -> None:
        """Take the next rows of a column panel, or the first of another.

        Args:
            rows: of any height; they go on below the ones before, at the same columns, or begin
                at a row and a column that are multiples of 512. They end at such a column or at
                the raster's last. What the output does not hold is left out.

        Raises:
            GridError: they do neither, were written before, have another dtype, or lack the
                confidence or the probabilities that the output holds.
            OutputError: they cannot be written.
        """
        for name in self._rasters:
            self.write_layer(name, rows.window, rows.of_layer(name))

    def write_layer(self, name: LayerName, window: Window, pixels: NDArray[Any]) -> None:
        """Take rows of one layer alone, (bands, height, width); see `write`."""
        self._rasters[name].write(window, pixels)

    def checksums(self, name: LayerName) -> Mapping[tuple[int, int], int]:
        """Of the blocks of a layer that were written; see `BlockRows.checksums`."""
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
    """Write a map; when the block ends well all its files appear, on an error none.

    Files that are there are replaced; see `outputs.check_output` for asking first. Beside the
    class raster appear `<path>.aux.xml` and a `.qml` of its stem.

    Args:
        path: the class raster, a COG of the legend's dtype.
        geobox: place and size.
        legend: what the ids mean; stored in the file.
        confidence_path: a COG of uint8 percent, nodata 255, with a `.qml`; None for none.
        probabilities_path: a COG of one uint8 band a class, in 1/250, nodata 255; None for none.
        tags: GDAL metadata for all of them; ours begin with GEODINOSEG_.

    Yields:
        The writer, which holds one block row of a panel.

    Raises:
        OutputError: a file cannot be written, two have one name, or pixels are missing at the end.
    """
    _check_apart(path, confidence_path, probabilities_path)
    tags = {"TIFFTAG_SOFTWARE": f"geodinoseg {__version__}"} | dict(tags or {})
    layouts = {path: _class_layout(path, geobox, legend, confidence_path, tags)}
    if confidence_path:
        layouts[confidence_path] = _confidence_layout(geobox, tags)
    if probabilities_path:
        layouts[probabilities_path] = _probability_layout(geobox, legend, tags)
    with ExitStack() as places:
        # Left in reverse order: the class raster, which names the confidence raster, comes last.
        beside = {target: places.enter_context(atomic_file(target)) for target in layouts}
        with ExitStack() as cogs:
            rows = {
                target: cogs.enter_context(cog_writer(beside[target], layout, target=target))
                for target, layout in layouts.items()
            }
            paths: dict[LayerName, Path | None] = {
                "classes": path,
                "confidence": confidence_path,
                "probabilities": probabilities_path,
            }
            yield ClassRasterWriter({name: rows[of] for name, of in paths.items() if of})
        _write_side_files(beside[path], legend)
        if confidence_path:
            _write_text(beside[confidence_path].with_suffix(".qml"), confidence_qml())


def _check_apart(*paths: Path | None) -> None:
    stems: set[Path] = set()
    for path in paths:
        if path is None:
            continue
        if path.with_suffix("") in stems:
            raise OutputError(
                f"{path}: another output of this run has this name, and with it the style (.qml) "
                f"that goes by it; give each its own."
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
    # A colour table of 65,536 entries makes QGIS 3.22 list them all.
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


def _write_side_files(raster: Path, legend: Legend) -> None:
    _write_text(raster.with_name(f"{raster.name}.aux.xml"), raster_attribute_table(legend))
    _write_text(raster.with_suffix(".qml"), raster_qml(legend))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
