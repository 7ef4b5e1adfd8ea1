"""New colours of a finished class raster: in the file, its attribute table and its style."""

from __future__ import annotations

import json
import logging
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from geodinoseg.errors import LegendError, OutputError, one_line
from geodinoseg.files.atomic import atomic_file
from geodinoseg.files.edited_style import StyleFile
from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.geobox import same_georeferencing
from geodinoseg.legend import Legend
from geodinoseg.qgis.recolor import recolor_palette, recolor_table
from geodinoseg.qgis.styles import qml_text, raster_attribute_table, raster_qml
from geodinoseg.rasters.class_raster import LEGEND_TAG, ClassRaster
from geodinoseg.rasters.cog import reopen
from geodinoseg.rasters.dataset import geobox_of
from geodinoseg.rasters.source import GDAL_SETTINGS
from geodinoseg.rasters.tiff_colors import recolor_tiff

_MARK = ("styledBy", "geodinoseg style")
"""Attribute of a style by which it counts as edited: a new map of the same name keeps it."""
_log = logging.getLogger(__name__)


def restyle_raster(raster: ClassRaster, legend: Legend) -> list[Path]:
    """Give a class raster other colours; pixels, georeference and other tags stay.

    Each file is replaced as a whole, the raster last. Files that need no change stay.

    Args:
        raster: a local file, which the caller has locked.
        legend: its classes with the new colours.

    Returns:
        The files that hold the colours: the raster, its `.aux.xml` and its `.qml`.

    Raises:
        OutputError: they cannot be written, or the file cannot be recoloured.
    """
    target = Path(raster.source.path)
    with atomic_file(target) as path:
        shutil.copyfile(target, path)
        shutil.copymode(target, path)
        metadata = target.with_name(f"{target.name}.aux.xml")
        copied = path.with_name(metadata.name)
        if metadata.is_file():
            shutil.copyfile(metadata, copied)
        _recolor_file(path, raster, legend)
        _write_table(copied, target, legend)
        _write_style(path.parent, target, legend)
        _check(path, raster, legend)
    return [target, metadata, target.with_suffix(".qml")]


def _recolor_file(path: Path, raster: ClassRaster, legend: Legend) -> None:
    with reopen(path) as dataset:
        driver, layout = dataset.driver, dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
    if driver != "GTiff":
        _log.warning(
            "%s: is a %s file, whose own colours stay; the new ones are in the files beside it.",
            raster.path,
            driver,
        )
        return
    try:
        has_table = recolor_tiff(path, legend)
    except ValueError as error:
        raise OutputError(
            f"{raster.path}: cannot be recoloured ({error}); convert it with gdal_translate first."
        ) from error
    if not has_table and layout != "COG" and raster.dtype == np.uint8:
        _add_table(path, raster, legend)


def _add_table(path: Path, raster: ClassRaster, legend: Legend) -> None:
    """Add a colour table, which GDAL appends to a file without the layout of a COG."""
    colors = {entry.class_id: (*entry.rgb, 255) for entry in legend}
    if raster.nodata is not None:
        colors[raster.nodata] = (0, 0, 0, 0)
    try:
        with rasterio.Env(**GDAL_SETTINGS), rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, colors)
    except (RasterioError, OSError, ValueError) as error:
        _log.warning("%s: gets no colour table (%s).", raster.path, one_line(error))


def _write_table(path: Path, target: Path, legend: Legend) -> None:
    """Recolour the attribute table of the `.aux.xml`, or add one."""
    try:
        root = parse_xml(path.read_bytes()) if path.exists() else None
    except XmlError as error:
        raise OutputError(
            f"{target}.aux.xml: cannot be read ({error}); move it away, then try again."
        ) from error
    table = None if root is None else root.find("PAMRasterBand[@band='1']/GDALRasterAttributeTable")
    if root is None or table is None:
        path.write_text(raster_attribute_table(legend, root=root), encoding="utf-8")
        return
    if not recolor_table(table, legend):
        _log.warning(
            "%s.aux.xml: its attribute table has no colour for each class, and stays as it is.",
            target,
        )
    for item in root.findall(f"Metadata/MDI[@key='{LEGEND_TAG}']"):
        item.text = json.dumps(legend.to_json(), ensure_ascii=False)
    ET.indent(root)
    path.write_text(ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")


def _write_style(folder: Path, target: Path, legend: Legend) -> None:
    """Recolour the palette of the `.qml`; one without all classes is replaced, and saved."""
    style = StyleFile(target.with_suffix(".qml"))
    text = style.text
    fresh = parse_xml(raster_qml(legend))
    try:
        root = fresh if text is None else parse_xml(text.removeprefix("\ufeff"))
    except XmlError:
        root = ET.Element("qgis")
    fits = recolor_palette(root, legend)
    (root if fits else fresh).set(*_MARK)
    if fits:
        (folder / style.path.name).write_text(qml_text(root), encoding="utf-8")
    else:
        style.replace_in(folder, qml_text(fresh), fits=False)


def _check(path: Path, raster: ClassRaster, legend: Legend) -> None:
    """Read the recoloured file back."""
    try:
        with reopen(path) as dataset:
            place = geobox_of(os.fspath(path), dataset)
            text = dataset.tags().get(LEGEND_TAG)
        stored = legend if text is None else Legend.from_json(json.loads(text))
    except (OSError, RasterioError, ValueError, LegendError) as error:
        raise OutputError(
            f"{raster.path}: not changed, as it would not be readable ({one_line(error)})."
        ) from error
    if stored != legend or not same_georeferencing(place, raster.geobox):
        raise OutputError(
            f"{raster.path}: not changed, as its colours cannot be replaced where they are; "
            f"convert it with gdal_translate first."
        )
