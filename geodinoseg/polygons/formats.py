"""Two formats with special rules: GeoParquet 1.1, and the limits of a Shapefile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geodinoseg.errors import OutputError
from geodinoseg.legend import Legend

_ROW_GROUP_ROWS = 50_000
_BOX = ("xmin", "ymin", "xmax", "ymax")
LARGEST_FILE_BYTES = 2**31 - 1
"""Of the .shp and of the .dbf: readers use signed 32-bit offsets."""
_LARGEST_TEXT_BYTES = 254
# Index entry, record header, shape type, bounding box and counts, less the WKB header.
_RECORD_BYTES = 52
# GDAL's columns: 24 digits for a float, 9 for a class id, 80 or more for a text.
_NUMBER_BYTES, _SMALLEST_TEXT_BYTES = 24, 80


def write_geoparquet(
    batches: Iterator[pa.RecordBatch],
    path: Path,
    *,
    schema: pa.Schema,
    crs: CRS | None,
    kind: str,
) -> None:
    """Write features as they arrive.

    Args:
        batches: the features.
        path: the file to write.
        schema: of the batches; the last column is WKB.
        crs: of the coordinates.
        kind: Polygon or MultiPolygon.
    """
    geometry = schema.names[-1]
    box = pa.struct([pa.field(side, pa.float64()) for side in _BOX])
    plain = schema.set(len(schema) - 1, pa.field(geometry, pa.binary()))
    extent: NDArray[np.float64] | None = None
    with pq.ParquetWriter(path, plain.append(pa.field("bbox", box)), compression="zstd") as writer:
        for group in _row_groups(batches, schema):
            bounds = shapely.bounds(shapely.from_wkb(group[geometry].to_numpy()))
            boxes = pa.StructArray.from_arrays(
                list(map(pa.array, bounds.T.copy())), fields=list(box)
            )
            writer.write_table(group.cast(plain).append_column("bbox", boxes))
            corners = bounds if extent is None else np.vstack([bounds, extent])
            extent = np.hstack([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(geometry, crs, kind, extent))})


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= _ROW_GROUP_ROWS:
            yield pa.Table.from_batches(held, schema=schema)
            held = []
    if any(map(len, held)):
        yield pa.Table.from_batches(held, schema=schema)


def _metadata(
    geometry: str, crs: CRS | None, kind: str, extent: NDArray[np.float64] | None
) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [kind],
        "orientation": "counterclockwise",
        # null means unknown; a missing key would mean longitude and latitude.
        "crs": None if crs is None else pyproj.CRS.from_user_input(crs).to_json_dict(),
        "covering": {"bbox": {side: ["bbox", side] for side in _BOX}},
    }
    if extent is not None:
        column["bbox"] = extent.tolist()
    return {"version": "1.1.0", "primary_column": geometry, "columns": {geometry: column}}


def check_shapefile_names(path: Path, legend: Legend) -> None:
    """Refuse class names that a .dbf would truncate."""
    for entry in legend:
        if len(entry.name.encode()) > _LARGEST_TEXT_BYTES:
            raise OutputError(
                f"{path}: a Shapefile holds text up to {_LARGEST_TEXT_BYTES} bytes, the name of "
                f"class {entry.class_id} has {len(entry.name.encode())}; write a .gpkg."
            )


def within_shapefile_limits(
    batches: Iterator[pa.RecordBatch],
    path: Path,
    legend: Legend,
    *,
    largest_bytes: int = LARGEST_FILE_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Pass batches on, as long as readers can open the .shp and the .dbf at their size."""
    text_bytes = max(_SMALLEST_TEXT_BYTES, *(len(name.encode()) for name in legend.names))
    shp_bytes = dbf_bytes = 0
    for batch in batches:
        shp_bytes += batch.column(batch.num_columns - 1).nbytes + _RECORD_BYTES * len(batch)
        dbf_bytes += (text_bytes + _NUMBER_BYTES * batch.num_columns) * len(batch)
        if max(shp_bytes, dbf_bytes) > largest_bytes:
            raise OutputError(
                f"{path}: the polygons do not fit in a Shapefile, which is limited to "
                f"{largest_bytes / 2**30:.0f} GB; write a .gpkg, or fewer polygons with "
                f"--min-area or --classes."
            )
        yield batch
