"""The file of a finished chunk: its rows, lossless, with checksums. Data, never code.

    geodinoseg part 1         a line: the format
    pixels                    pieces of at most a block row, each deflated (zlib)
    contents                  JSON in UTF-8: run and chunk, and where each piece lies
    length of the contents    8 bytes, little-endian
    SHA-256                   32 bytes, of all bytes before it

Deflate detects a flipped bit by itself, and the standard library has it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import GridError, OutputError
from geodinoseg.rasters.map_rows import BLOCK_PX, BlockRows, Checksums, ClassRows, Layer, LayerName
from geodinoseg.windows import Window

logger = logging.getLogger(__name__)

_MAGIC = b"geodinoseg part 1\n"
_LENGTH_BYTES, _DIGEST_BYTES = 8, 32
_READ_BYTES = 1 << 20
_LONGEST_CONTENTS_BYTES = 64 << 20
_LEVEL = 1  # of deflate: 2.5 ms per million pixels of a map; parts are temporary
PIECE_BYTES = 8 << 20
"""Largest piece before compression: reading and writing parts hold a few of them at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartName:
    """What a part is of; a part of another run or chunk is rejected."""

    key: str
    """Of the run: a digest of scene, model and settings."""
    chunk: int
    """Index in the run's order."""
    window: Window
    """The chunk's core, in pixels of the scene."""

    def to_json(self) -> dict[str, Any]:
        """As it is written in the file."""
        return {"key": self.key, "chunk": self.chunk, "window": self.window.ranges}


class PartWriter:
    """Takes the rows of one chunk in the order in which a class raster takes them."""

    def __init__(
        self, file: IO[bytes], name: PartName, layers: Sequence[Layer], *, nodata: int
    ) -> None:
        """Begin a part in an empty file; nodata is the class id of pixels without one."""
        self._file = file
        self._name = name
        self._nodata = nodata
        self._digest = hashlib.sha256()
        self._pieces: list[list[Any]] = []
        self._remarks: dict[str, Any] = {}
        self._left_px = name.window.width * name.window.height
        self.is_complete = False
        """Whether all rows of the chunk were written."""
        self._valid_px = 0
        self._layers = layers
        self._rows: dict[LayerName, BlockRows] = {
            layer.name: BlockRows(
                partial(self._put_block_row, layer),
                height=name.window.row_end,
                width=name.window.col_end,
                bands=layer.bands,
                dtype=layer.dtype,
            )
            for layer in layers
        }
        self._put(_MAGIC)

    def write(self, rows: ClassRows) -> None:
        """Take rows of the chunk; see `ClassRasterWriter.write`."""
        if rows.window.intersection(self._name.window) != rows.window:
            raise GridError(f"{rows.window} lies outside the chunk, {self._name.window}.")
        for layer, block_rows in self._rows.items():
            block_rows.write(rows.window, rows.of_layer(layer))
        self._left_px -= rows.window.width * rows.window.height
        self.is_complete = self._left_px == 0
        self._valid_px += int(np.count_nonzero(rows.class_ids != self._nodata))

    def remark(self, name: str, value: Any) -> None:
        """Keep a small fact with the part, as JSON."""
        self._remarks[name] = value

    def finish(self) -> None:
        """Write the contents and the digest."""
        if not self.is_complete:
            raise GridError(f"{self._left_px} px of {self._name.window} were not written.")
        contents = {
            **self._name.to_json(),
            "layers": _layer_facts(self._layers),
            "pieces": self._pieces,
            "checksums": {
                layer: [[*place, crc] for place, crc in rows.checksums.items()]
                for layer, rows in self._rows.items()
            },
            "valid_px": self._valid_px,
            "remarks": self._remarks,
        }
        text = json.dumps(contents, separators=(",", ":")).encode()
        self._put(text)
        self._put(len(text).to_bytes(_LENGTH_BYTES, "little"))
        self._file.write(self._digest.digest())

    def _put_block_row(self, layer: Layer, window: Window, pixels: NDArray[Any]) -> None:
        """Write a block row, pixels (bands, height, width), in pieces of at most `PIECE_BYTES`."""
        block_bytes = layer.bands * BLOCK_PX**2 * layer.dtype.itemsize
        cols = max(PIECE_BYTES // block_bytes, 1) * BLOCK_PX
        rows = (window.row_off, window.row_end)
        for col in range(window.col_off, window.col_end, cols):
            piece = pixels[:, :, col - window.col_off : col - window.col_off + cols]
            deflated = zlib.compress(np.ascontiguousarray(piece).data, _LEVEL)
            ranges = (rows, (col, col + piece.shape[2]))
            self._pieces.append([layer.name, ranges, len(deflated)])
            self._put(deflated)

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class Part:
    """A part that is whole and of the right run and chunk; made by `open_part`."""

    def __init__(self, file: IO[bytes], contents: Mapping[str, Any]) -> None:
        self._file = file
        self._contents = contents
        self.valid_px: int = contents["valid_px"]
        """Pixels that have a class."""
        self.remarks: Mapping[str, Any] = contents["remarks"]
        """Small facts that were kept with it."""

    def checksums(self, layer: LayerName) -> Checksums:
        """Of the blocks of a layer, when they were computed."""
        return {(row, col): crc for row, col, crc in self._contents["checksums"][layer]}

    def pieces(self) -> Iterator[tuple[LayerName, Window, NDArray[Any]]]:
        """Layer, window and pixels (bands, height, width) of each piece, in writing order."""
        layers = {name: (dtype, bands) for name, dtype, bands in self._contents["layers"]}
        self._file.seek(len(_MAGIC))
        for name, ranges, length in self._contents["pieces"]:
            dtype, bands = layers[name]
            window = _window(ranges)
            shape = (bands, window.height, window.width)
            yield name, window, self._inflated(self._file.read(length), shape, np.dtype(dtype))

    def _inflated(
        self, deflated: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(deflated, size)
            # The checksum comes after the last byte of data.
            whole = len(data) == size and not inflater.decompress(inflater.unconsumed_tail, 1)
        except zlib.error:
            whole = False
        if not (whole and inflater.eof):
            chunk = self._contents["chunk"]
            raise OutputError(f"part {chunk} was damaged while it was read; run it again.")
        return np.frombuffer(data, dtype=dtype).reshape(shape)


def open_part(file: IO[bytes], name: PartName, layers: Sequence[Layer]) -> Part | None:
    """Open a part and compare all of it with its SHA-256; the part reads from the file later.

    None where it is damaged, cut off, or not of this run, chunk and layers.
    """
    # By way of JSON, which has lists where Python has tuples.
    expected = json.loads(json.dumps({**name.to_json(), "layers": _layer_facts(layers)}))
    try:
        size = file.seek(0, os.SEEK_END)
        contents = _read_contents(file, size)
        if expected.items() <= contents.items():
            _check_digest(file, size)
            return Part(file, contents)
        fault: object = "it is of another run or chunk"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        fault = error
    logger.debug("part %d is computed again: %s", name.chunk, fault)
    return None


def _read_contents(file: IO[bytes], size: int) -> dict[str, Any]:
    """Raise OSError or ValueError where they cannot be read."""
    end = size - _DIGEST_BYTES - _LENGTH_BYTES
    if end < len(_MAGIC):
        raise ValueError("it is too short")
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is not a part")
    file.seek(end)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > min(end - len(_MAGIC), _LONGEST_CONTENTS_BYTES):
        raise ValueError("the length of its contents is impossible")
    file.seek(end - length)
    contents: dict[str, Any] = json.loads(file.read(length))
    return contents


def _check_digest(file: IO[bytes], size: int) -> None:
    """Raise ValueError where the file was changed since it was written."""
    file.seek(0)
    digest, left = hashlib.sha256(), size - _DIGEST_BYTES
    while left:
        data = file.read(min(_READ_BYTES, left))
        if not data:
            raise ValueError("it is cut off")
        digest.update(data)
        left -= len(data)
    if file.read() != digest.digest():
        raise ValueError("its SHA-256 differs")


def _layer_facts(layers: Sequence[Layer]) -> list[list[Any]]:
    return [[layer.name, layer.dtype.str, layer.bands] for layer in layers]


def _window(ranges: Sequence[Sequence[int]]) -> Window:
    (row_off, row_end), (col_off, col_end) = ranges
    return Window(
        col_off=col_off, row_off=row_off, width=col_end - col_off, height=row_end - row_off
    )
