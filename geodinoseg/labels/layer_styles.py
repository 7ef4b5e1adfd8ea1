"""The style of a vector layer: in its GeoPackage, or in a `.qml` sidecar.

The user did not ask for it, so one that cannot be read is ignored with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from geodinoseg.errors import LabelError, one_line
from geodinoseg.labels.paths import VectorFile, file_of
from geodinoseg.labels.tables import LabelTable
from geodinoseg.qgis.geopackage import read_layer_styles
from geodinoseg.rasters.class_style import ClassStyle, StyleError, read_qml, read_single_color
from geodinoseg.rasters.legend_file import read_text

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def vector_style(path: VectorFile, layer: str | None, fields: tuple[str, ...]) -> ClassStyle:
    """The style of a layer by one of the fields: the class column and that of the names."""
    style = _read_layer_style(path, layer, lambda text: read_qml(text, fields=fields))
    return ClassStyle() if style is None else style


def single_symbol_color(path: VectorFile, layer: str | None) -> str | None:
    """The colour of a layer that is drawn with a single symbol."""
    return _read_layer_style(path, layer, read_single_color)


def _read_layer_style(path: VectorFile, layer: str | None, read: Callable[[str], _T]) -> _T | None:
    """What `read` makes of a layer's QML; None where there is none, or none that can be read."""
    if isinstance(path, LabelTable):
        return None
    try:
        text = _qml_of(path, layer)
        return None if text is None else read(text)
    except (StyleError, LabelError) as error:
        _log.warning(
            "%s: the layer's style cannot be read, so it is ignored (%s).", path, one_line(error)
        )
        return None


def _qml_of(path: str, layer: str | None) -> str | None:
    """The text of a layer's style; a GeoPackage's own takes precedence over a sidecar."""
    file = Path(file_of(path))
    own = None if layer is None or file.suffix.lower() != ".gpkg" else _geopackage_qml(file, layer)
    sidecar = _sidecar(path, ".qml") if own is None else None
    return read_text(str(sidecar)) if sidecar is not None else own


def _geopackage_qml(file: Path, layer: str) -> str | None:
    return next((style.qml for style in read_layer_styles(file, layer)), None)


def _sidecar(path: str, suffix: str) -> Path | None:
    sidecar = Path(file_of(path)).with_suffix(suffix)
    try:
        return sidecar if sidecar.is_file() else None
    except OSError:
        return None
