"""The source of a raster, and the GDAL settings for reading and writing, with reasons."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property

import rasterio

from geodinoseg.files.atomic import PathLike
from geodinoseg.redaction import redact_name, redact_path

CACHE_BYTES = 64 << 20
"""Default size of GDAL's block cache."""

GDAL_SETTINGS = {
    # In bytes, since `Env` passes it on unchanged. Each source block is read once, in whole block
    # rows, so a larger cache has no use; a bounded one keeps peak memory independent of the height
    # of the scene.
    "GDAL_CACHEMAX": CACHE_BYTES,
    # Encode blocks on all cores with one handle: several handles would not share the cache.
    "GDAL_NUM_THREADS": "ALL_CPUS",
    # Read as a whole, a truncated PNG is black without an error; row by row it is refused.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": False,
    # Repeated here, since inner blocks inherit the settings of outer ones.
    "GDAL_DISABLE_READDIR_ON_OPEN": False,
}
"""Settings under which rasters are written, and read again: `rasterio.Env(**GDAL_SETTINGS)`."""
_REMOTE = {
    # With threads, GDAL 3.10 fetches blocks ahead, ignores failures and decodes uninitialized
    # memory: wrong pixels without an error (tests/properties/test_remote.py). In one thread it
    # retries, still merges adjacent ranges, and reports failures.
    "GDAL_NUM_THREADS": "1",
    "GDAL_HTTP_ENABLE_ADVISE_READ": False,
    # 429, 5xx and broken connections are retried after 0.5, 1 and 2 s; if that fails,
    # `retry.retry` opens the file again.
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    # A stalled connection (under 100 bytes per second) is aborted after 15 s.
    "GDAL_HTTP_LOW_SPEED_TIME": 15,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 100,
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": True,
    "GDAL_HTTP_MULTIPLEX": True,
    # The header of most files in one request.
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    # Failures must not be cached: a file that is opened again is fetched again.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/:/vsiadls/:/vsioss/:/vsiswift/",
}


def bounded_settings(left_s: float) -> rasterio.Env:
    """Settings for an attempt that ends within the seconds left, but at least one second.

    GDAL limits the time of each request and repeats it. If all repetitions would take longer than
    the time left, the request is sent once, with that time as its limit.
    """
    request_s, retries = _number("GDAL_HTTP_TIMEOUT"), _number("GDAL_HTTP_MAX_RETRY")
    timeout_s = max(1.0, min(request_s, left_s))
    if (1 + retries) * timeout_s > left_s:
        retries = 0
    return rasterio.Env(GDAL_HTTP_TIMEOUT=timeout_s, GDAL_HTTP_MAX_RETRY=int(retries))


def _number(name: str) -> float:
    """The value of a setting in the environment, else the default above."""
    ours = float(str(_REMOTE[name]))
    try:
        return float(os.environ.get(name, ours)) or ours
    except ValueError:
        return ours


_REMOTE_HANDLERS = re.compile(r"/?vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(_streaming)?[/?]")
_LOCAL_SCHEMES = {"file", "zip", "tar", "gzip"}
# GDAL handlers that assemble a file from others, and text instead of a file name.
_ASSEMBLED = re.compile(r"/vsi(sparse|subfile)|\s*[<{\[]")


@dataclass(frozen=True)
class RasterSource:
    """The path of a raster, and whether it is trusted. A plain value."""

    path: str
    """A file, or any path that GDAL reads (`/vsizip/...`, `https://...`, a VRT)."""
    trusted: bool = False
    """Whether all formats of GDAL are allowed, also those that read other files or addresses."""

    @classmethod
    def of(cls, path: PathLike, *, trusted: bool = False) -> RasterSource:
        """The source at a path."""
        return cls(os.fspath(path), trusted)

    @cached_property
    def is_plain_path(self) -> bool:
        """Whether it is a path of the file system, not an address or a file in an archive."""
        return not (self.path.startswith("/vsi") or "://" in self.path)

    @cached_property
    def is_remote(self) -> bool:
        """Whether it is read from a server: `https://`, `s3://`, `/vsicurl/` and the like."""
        if self.path.startswith("/vsi"):
            return _REMOTE_HANDLERS.search(self.path) is not None
        scheme, separator, _ = self.path.partition("://")
        return bool(separator) and not set(scheme.lower().split("+")) <= _LOCAL_SCHEMES

    @cached_property
    def is_assembled(self) -> bool:
        """Whether the path itself describes a file assembled from others."""
        return _ASSEMBLED.match(self.path) is not None

    @cached_property
    def name(self) -> str:
        """The path to show, without passwords, signatures and keys."""
        return self.path if self.is_plain_path else redact_path(self.path)

    @cached_property
    def file_name(self) -> str:
        """The file name to show, such as `ortho.tif`."""
        return os.path.basename(self.path) if self.is_plain_path else redact_name(self.path)

    def settings(self, *, cache_bytes: int | None = None) -> rasterio.Env:
        """GDAL's settings for reading it, which apply to this thread.

        Args:
            cache_bytes: size of GDAL's block cache; None for the default.
        """
        settings: dict[str, object] = dict(GDAL_SETTINGS)
        if self.trusted or self.is_remote:  # the user's environment variables take precedence
            settings |= {name: value for name, value in _REMOTE.items() if name not in os.environ}
        # With threads, GDAL 3.10 returns pixels for some damage that it refuses in one thread
        # (seed 7 of tests/support/fuzzing.py). The environment cannot override this.
        settings["GDAL_NUM_THREADS"] = "1"
        # Files beside a raster in an archive or on a server cannot be checked beforehand; on a
        # server, listing the folder costs more than reading the raster.
        if not self.trusted and not self.is_plain_path:
            settings["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"
        if cache_bytes is not None:
            settings["GDAL_CACHEMAX"] = cache_bytes
        return rasterio.Env(**settings)

    def __str__(self) -> str:
        """The path, for messages."""
        return self.path
