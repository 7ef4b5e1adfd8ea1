"""The legend that all files of a mosaic share; gdalbuildvrt does not copy their tags."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

from geodinoseg.errors import SceneError
from geodinoseg.files.safe_xml import XmlError, parse_xml
from geodinoseg.rasters.dataset import open_dataset
from geodinoseg.rasters.source import RasterSource

_LARGEST_BYTES = 64 << 20
_MOST_FILES = 2_000
_DEEPEST = 3
_PLACED = {"SimpleSource", "ComplexSource"}
# Elements of a source that do not change its values, unlike lookup tables and scales.
_HARMLESS = {
    *("SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA"),
    *("UseMaskBand", "OpenOptions"),
}


def shared_tag(
    source: RasterSource, tag: str, *, same: Callable[[str | None], object]
) -> str | None:
    """The value of a tag that all files of a mosaic share; None if they differ or one has none.

    Args:
        source: a local VRT; for other rasters the result is None.
        tag: name of the tag, in the default domain of the files.
        same: what must be equal in the values; the value of the first file is returned.
    """
    if not source.is_plain_path:
        return None
    try:
        values = list(dict.fromkeys(_values(source, tag, depth=0)))
    except (SceneError, XmlError, OSError, _OtherNumbersError):
        return None
    first = same(values[0]) if values else None
    return values[0] if all(same(value) == first for value in values[1:]) and values else None


class _OtherNumbersError(Exception):
    """The VRT changes pixel values, or is not a mosaic."""


def _values(source: RasterSource, tag: str, *, depth: int) -> Iterator[str | None]:
    """The tag of each file, including the files of nested mosaics."""
    for number, path in enumerate(_files(source.path)):
        if number == _MOST_FILES or depth == _DEEPEST:
            raise _OtherNumbersError
        inner = RasterSource(path, source.trusted)
        with open_dataset(inner) as dataset:
            value, driver = dataset.tags().get(tag), dataset.driver
        if value is None and driver == "VRT":
            yield from _values(inner, tag, depth=depth + 1)
        else:
            yield value


def _files(path: str) -> list[str]:
    """The files whose first band a VRT shows unchanged."""
    if os.path.getsize(path) > _LARGEST_BYTES:
        raise _OtherNumbersError
    root = parse_xml(Path(path).read_bytes())
    bands = root.findall("VRTRasterBand")
    if root.get("subClass") or len(bands) != 1:
        raise _OtherNumbersError
    found = (child for child in bands[0] if child.find("SourceFilename") is not None)
    return [_file(path, child) for child in found]


def _file(path: str, element: ET.Element) -> str:
    plain = element.tag in _PLACED and {child.tag for child in element} <= _HARMLESS
    if not plain or element.findtext("SourceBand", "1") != "1":
        raise _OtherNumbersError
    name = element.find("SourceFilename")
    text = "" if name is None or name.text is None else name.text
    is_relative = name is not None and name.get("relativeToVRT") == "1"
    return os.path.join(os.path.dirname(path), text) if is_relative else text
