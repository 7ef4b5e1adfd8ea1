"""The source of a raster, and the GDAL settings under which it is read: scoped, with reasons."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property

import rasterio

from geodinoseg.files.atomic import PathLike
from geodinoseg.redaction import redact_name, redact_path

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


_REMOTE_HANDLERS = re.compile(r"/?vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(_streaming)?[/?]")
_LOCAL_SCHEMES = {"file", "zip", "tar", "gzip"}
# GDAL handlers that assemble a file from others, and text in place of a file.
_ASSEMBLED = re.compile(r"/vsi(sparse|subfile)|\s*[<{\[]")


@dataclass(frozen=True)
class RasterSource:
    """What is opened as a raster, and whether it is trusted. A plain value."""

    path: str
    """A file, or any path that GDAL reads (`/vsizip/...`, `https://...`, a VRT)."""
    trusted: bool = False
    """Whether it may be of any kind that GDAL knows, fetch addresses and read other files."""

    @classmethod
    def of(cls, path: PathLike, *, trusted: bool = False) -> RasterSource:
        """The source at a path, given as text or as a Path."""
        return cls(os.fspath(path), trusted)

    @cached_property
    def is_plain_path(self) -> bool:
        """Whether the path is one of the file system, rather than an address or in an archive."""
        return not (self.path.startswith("/vsi") or "://" in self.path)

    @cached_property
    def is_remote(self) -> bool:
        """Whether reading it asks a server: `https://`, `s3://`, `/vsicurl/` and the like."""
        if self.path.startswith("/vsi"):
            return _REMOTE_HANDLERS.search(self.path) is not None
        scheme, separator, _ = self.path.partition("://")
        return bool(separator) and not set(scheme.lower().split("+")) <= _LOCAL_SCHEMES

    @cached_property
    def is_assembled(self) -> bool:
        """Whether the path itself describes a file made of others."""
        return _ASSEMBLED.match(self.path) is not None

    @cached_property
    def name(self) -> str:
        """The path as it may be shown: without passwords, signatures and keys."""
        return self.path if self.is_plain_path else redact_path(self.path)

    @cached_property
    def file_name(self) -> str:
        """The last part of its name, such as `ortho.tif`."""
        return os.path.basename(self.path) if self.is_plain_path else redact_name(self.path)

    def settings(self, *, cache_bytes: int | None = None) -> rasterio.Env:
        """GDAL's settings for reading it.

        Args:
            cache_bytes: size of GDAL's block cache where the default does not fit.
        """
        return gdal_settings(
            cache_bytes=cache_bytes,
            reading=True,
            remote=self.trusted or self.is_remote,
            # Files beside a raster in an archive or on a server cannot be checked first; on a
            # server, listing the folder costs more than reading the raster.
            alone=not self.trusted and not self.is_plain_path,
        )

    def __str__(self) -> str:
        """The path, for messages."""
        return self.path
