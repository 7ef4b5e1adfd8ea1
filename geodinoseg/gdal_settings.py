"""GDAL's settings in one place, each with its reason; scoped, never left behind."""

from __future__ import annotations

import rasterio

CACHE_BYTES = 64 << 20
"""Size of GDAL's block cache, unless a file needs more."""

_SETTINGS = {
    # Bytes, as `Env` passes it on unchanged. Each source block is read once, whole block rows at
    # a time, so a larger cache holds what nobody asks for again; a bounded one keeps the peak
    # memory of a tall scene that of a short one.
    "GDAL_CACHEMAX": CACHE_BYTES,
    # Decode and encode blocks on all cores, with one handle: a pool of handles would not share
    # the cache.
    "GDAL_NUM_THREADS": "ALL_CPUS",
    # Read whole, a truncated PNG comes out black without an error; row by row it is refused.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": False,
    # A server that stumbles is asked again, a few times, before the run gives up.
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}


def gdal_settings(*, cache_bytes: int | None = None) -> rasterio.Env:
    """The settings under which geodinoseg reads and writes rasters.

    Args:
        cache_bytes: size of GDAL's block cache where the default does not fit the work.

    Returns:
        A context manager; the settings hold inside it, in this thread.
    """
    settings = dict(_SETTINGS)
    if cache_bytes is not None:
        settings["GDAL_CACHEMAX"] = cache_bytes
    return rasterio.Env(**settings)
