"""What a Shapefile cannot hold, said in one line instead of cut off without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from geodinoseg.errors import OutputError
from geodinoseg.legend import Legend

LARGEST_FILE_BYTES = 2**31 - 1
"""Of the .shp and of the .dbf: readers take their offsets as signed 32-bit numbers."""
_LARGEST_TEXT_BYTES = 254
# Index entry, record header, shape type, bounding box and counts, less the WKB header.
_RECORD_BYTES = 52
# GDAL's columns: 24 digits for a float, 9 for a class id, 80 or more for a text.
_NUMBER_BYTES, _SMALLEST_TEXT_BYTES = 24, 80


def check_shapefile_names(path: Path, legend: Legend) -> None:
    """Refuse class names that a .dbf would cut.

    Raises:
        OutputError: a name is longer than 254 bytes.
    """
    for entry in legend:
        if len(entry.name.encode()) > _LARGEST_TEXT_BYTES:
            raise OutputError(
                f"{path}: a Shapefile holds texts up to {_LARGEST_TEXT_BYTES} bytes, the name of "
                f"class {entry.class_id} has {len(entry.name.encode())}; write a .gpkg."
            )


def within_shapefile_limits(
    batches: Iterator[pa.RecordBatch],
    path: Path,
    legend: Legend,
    *,
    largest_bytes: int = LARGEST_FILE_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Pass batches on until the .shp or the .dbf would grow past what readers take.

    Raises:
        OutputError: the next batch would not fit.
    """
    text_bytes = max(_SMALLEST_TEXT_BYTES, *(len(name.encode()) for name in legend.names))
    shp_bytes = dbf_bytes = 0
    for batch in batches:
        shp_bytes += batch.column(batch.num_columns - 1).nbytes + _RECORD_BYTES * len(batch)
        dbf_bytes += (text_bytes + _NUMBER_BYTES * batch.num_columns) * len(batch)
        if max(shp_bytes, dbf_bytes) > largest_bytes:
            raise OutputError(
                f"{path}: the polygons do not fit a Shapefile, which ends at "
                f"{largest_bytes / 2**30:.0f} GB; write a .gpkg, or fewer polygons with "
                f"--min-area or --classes."
            )
        yield batch
