"""New colours in a TIFF, byte by byte: in its legend tag and in the colour tables of all levels.

Colours keep their length, so nothing moves: not a pixel is touched, and a cloud-optimized layout
stays, which GDAL would break.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from geodinoseg.legend import Legend
from geodinoseg.rasters.class_raster import LEGEND_TAG

_COLOR_MAP, _GDAL_METADATA = 320, 42112
_MOST_LEVELS, _MOST_BYTES = 64, 64 << 20
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 16: 8}
"""Bytes of a value by the number of its type."""
_QUOTE = rb'(?:&amp;quot;|&quot;|")'
_ITEM = re.compile(rb'<Item name="' + LEGEND_TAG.encode() + rb'"[^>]*>(.*?)</Item>', re.DOTALL)
_COLOR = re.compile(_QUOTE + rb"color" + _QUOTE + rb"\s*:\s*" + _QUOTE + rb"(#[0-9a-fA-F]{6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A tag of a level."""

    tag: int
    start: int
    """Position of its value in the file."""
    size: int
    """Bytes of its value."""


def recolor_tiff(path: Path, legend: Legend) -> bool:
    """Write the colours of a legend into a file, which must be private to the caller.

    Args:
        path: a TIFF or BigTIFF.
        legend: the classes of its legend tag, in the same order; without such a tag, those of its
            colour table.

    Returns:
        Whether it has a colour table.

    Raises:
        ValueError: it is not such a file.
    """
    has_table = False
    with path.open("r+b") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        if order is None:
            raise ValueError("not a TIFF")
        try:
            for entry in _entries(file, order):
                file.seek(entry.start)
                value = bytearray(file.read(entry.size))
                if entry.tag == _COLOR_MAP:
                    has_table = True
                    _recolor_table(value, order, legend)
                else:
                    _recolor_tag(value, legend)
                file.seek(entry.start)
                file.write(value)
        except (struct.error, OverflowError, KeyError) as error:
            raise ValueError("damaged directory") from error
    return has_table


def _entries(file: BinaryIO, order: str) -> Iterator[_Entry]:
    """The tags that hold colours, of all levels."""
    file.seek(2)
    is_big = struct.unpack(order + "H", file.read(2))[0] == 43
    # Number of tags, a tag, offset of the next level.
    count, one, offset = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    inline = struct.calcsize(order + offset)
    file.seek(8 if is_big else 4)
    at = struct.unpack(order + offset, file.read(inline))[0]
    for _ in range(_MOST_LEVELS):
        if not at:
            return
        file.seek(at)
        tags = struct.unpack(order + count, file.read(struct.calcsize(order + count)))[0]
        found = []
        for _ in range(min(tags, 4096)):
            tag, kind, length = struct.unpack(order + one, file.read(struct.calcsize(order + one)))
            position = file.tell()
            value = file.read(inline)
            size = _SIZES.get(kind, 8) * length
            if tag in {_COLOR_MAP, _GDAL_METADATA} and size <= _MOST_BYTES:
                start = position if size <= inline else struct.unpack(order + offset, value)[0]
                found.append(_Entry(tag=tag, start=start, size=size))
        at = struct.unpack(order + offset, file.read(inline))[0]
        yield from found


def _recolor_table(value: bytearray, order: str, legend: Legend) -> None:
    """All reds, then greens, then blues, in 16 bit."""
    levels = np.frombuffer(value, dtype=f"{order}u2").copy()
    # Other programs store 255 as 65,280.
    factor = 257 if (levels % 257 == 0).all() else 256
    entries = len(levels) // 3
    for entry in legend:
        if entry.class_id < entries:
            for channel, level in enumerate(entry.rgb):
                levels[channel * entries + entry.class_id] = level * factor
    value[: levels.nbytes] = levels.tobytes()


def _recolor_tag(value: bytearray, legend: Legend) -> None:
    item = _ITEM.search(value)
    if item is None:
        return
    colors = [found.span(1) for found in _COLOR.finditer(value, item.start(1), item.end(1))]
    if len(colors) != len(legend):
        raise ValueError(f"tag {LEGEND_TAG} of another form")
    for (start, end), entry in zip(colors, legend, strict=True):
        value[start:end] = entry.color.encode()
