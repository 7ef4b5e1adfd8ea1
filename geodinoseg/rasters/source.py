"""The source of a raster: its path, where that leads, and what the file may do."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property

import rasterio

from geodinoseg.files.atomic import PathLike
from geodinoseg.rasters.gdal_env import gdal_settings
from geodinoseg.redaction import redact_path

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
