"""GDAL's settings in one place, each with its reason; scoped, never left behind."""

from __future__ import annotations

import os

import rasterio

CACHE_BYTES = 64 << 20
"""Size of GDAL's block cache, unless a file needs more."""

_SETTINGS = {
    # Bytes, as `Env` passes it on unchanged. Each source block is read once, whole block rows at
    # a time, so a larger cache holds what nobody asks for again; a bounded one keeps the peak
    # memory of a tall scene that of a short one.
    "GDAL_CACHEMAX": CACHE_BYTES,
    # Encode blocks on all cores, with one handle: a pool of handles would not share the cache.
    "GDAL_NUM_THREADS": "ALL_CPUS",
    # Read whole, a truncated PNG comes out black without an error; row by row it is refused.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": False,
    # Said here too, since settings of an outer block hold in inner ones.
    "GDAL_DISABLE_READDIR_ON_OPEN": False,
}
_REMOTE = {
    # With threads GDAL 3.10 fetches blocks ahead, takes no note of what fails there, and decodes
    # whatever lies in memory: wrong pixels without an error (tests/properties/test_remote.py).
    # In one thread it asks again, merges neighbouring ranges all the same, and fails where it must.
    "GDAL_NUM_THREADS": "1",
    "GDAL_HTTP_ENABLE_ADVISE_READ": False,
    # 429, 5xx and broken connections are asked again after 0.5, 1 and 2 s; `retry.retry`
    # begins anew where that does not help.
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    # A connection that stands still (under 100 bytes a second) is given up after 15 s.
    "GDAL_HTTP_LOW_SPEED_TIME": 15,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 100,
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": True,
    "GDAL_HTTP_MULTIPLEX": True,
    # The header of most files in one request.
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    # A fault must not be remembered: what is opened again is fetched again.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/:/vsiadls/:/vsioss/:/vsiswift/",
}


def bounded_settings(left_s: float) -> rasterio.Env:
    """Settings of a try that is to end in so many seconds, or in one.

    GDAL gives each request its own time, and begins it anew. Where all of these would take
    longer, a request is sent once, with the time that is left.
    """
    request_s, again = _number("GDAL_HTTP_TIMEOUT"), _number("GDAL_HTTP_MAX_RETRY")
    timeout_s = max(1.0, min(request_s, left_s))
    if (1 + again) * timeout_s > left_s:
        again = 0
    return rasterio.Env(GDAL_HTTP_TIMEOUT=timeout_s, GDAL_HTTP_MAX_RETRY=int(again))


def _number(name: str) -> float:
    """A setting as the environment has it, else as we do."""
    ours = float(str(_REMOTE[name]))
    try:
        return float(os.environ.get(name, ours)) or ours
    except ValueError:
        return ours


def gdal_settings(
    *,
    cache_bytes: int | None = None,
    reading: bool = False,
    remote: bool = False,
    alone: bool = False,
) -> rasterio.Env:
    """The settings under which geodinoseg reads and writes rasters.

    Args:
        cache_bytes: size of GDAL's block cache where the default does not fit the work.
        reading: whether a raster that may be damaged is read.
        remote: whether a server is read from; what the user's environment says of it is kept.
        alone: whether a raster is read without a look at the files beside it.

    Returns:
        A context manager; the settings hold inside it, in this thread.
    """
    settings: dict[str, object] = dict(_SETTINGS)
    if remote:
        settings |= {name: value for name, value in _REMOTE.items() if name not in os.environ}
    if reading or remote:
        # With threads GDAL 3.10 lets damage pass that it refuses in one, and gives pixels for it
        # (seed 7 of tests/support/fuzzing.py). Never from the environment.
        settings["GDAL_NUM_THREADS"] = "1"
    if alone:
        settings["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"
    if cache_bytes is not None:
        settings["GDAL_CACHEMAX"] = cache_bytes
    return rasterio.Env(**settings)
