"""Parts in an object store: S3 and what speaks its language, Google Cloud Storage, Azure.

An object appears when its upload is complete, so a killed process leaves none that is cut off.
There are no locks: nothing but the key in each part keeps two runs apart.
"""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import IO, TypeVar
from urllib.parse import urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from geodinoseg.errors import OutputError, one_line
from geodinoseg.rasters.retry import retry

SCHEMES = ("s3://", "gs://", "gcs://", "abfs://", "abfss://")
"""How the addresses begin."""

_IN_MEMORY_BYTES = 16 << 20
"""Of a part on its way; larger ones pass through a temporary file."""
_FIRST_DEADLINE_S = 10.0
"""For the first look: a mistyped address should not take minutes to be refused."""
_DELETED_AT_ONCE = 16
_PART = re.compile(r"part-\d+")
# What a store says once and for all.
_FINAL = re.compile(r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_|SIGNATURE|FORBIDDEN|\b(400|401|403)\b")

_T = TypeVar("_T")


class ObjectStore:
    """The objects under one address; a `PartStore`."""

    def __init__(self, place: str) -> None:
        """Look at an address; asks nobody.

        Args:
            place: such as `s3://bucket/runs/map.tif.parts`. After a `?` may follow options of
                `pyarrow.fs.FileSystem.from_uri`, such as `region` or `endpoint_override`.
        """
        self._place = place

    @property
    def place(self) -> str:
        """See `PartStore`."""
        return self._place

    def check(self) -> None:
        """See `PartStore`."""

        def look() -> bool:
            files, path = _connected(self._place)
            bucket = files.get_file_info(path.partition("/")[0])
            return bool(bucket.type != fs.FileType.NotFound)

        if not self._patiently(look, deadline_s=_FIRST_DEADLINE_S):
            raise OutputError(
                f"{self._place}: there is no such bucket; make it, or check the name."
            )

    def locked(self) -> AbstractContextManager[None]:
        """See `PartStore`; object stores know no locks."""
        return nullcontext()

    def is_there(self) -> bool:
        """See `PartStore`; parts alone are what a worker sent that was given up before."""
        return any(_PART.fullmatch(name) is None for name in self.names())

    def names(self) -> frozenset[str]:
        """See `PartStore`."""

        def listed() -> frozenset[str]:
            files, path = _connected(self._place)
            found = files.get_file_info(fs.FileSelector(path, allow_not_found=True))
            return frozenset(info.base_name for info in found if info.type == fs.FileType.File)

        return self._patiently(listed)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """See `PartStore`; the object is fetched first, whole."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:

            def fetch() -> bool:
                files, path = _connected(self._place)
                file.seek(0)
                file.truncate()
                try:
                    with files.open_input_stream(f"{path}/{name}") as source:
                        shutil.copyfileobj(source, file)
                except FileNotFoundError:
                    return False
                return True

            if not self._patiently(fetch):
                raise FileNotFoundError(f"{self._place}: holds no {name}")
            file.seek(0)
            yield file

    @contextmanager
    def written(self, name: str) -> Iterator[IO[bytes]]:
        """See `PartStore`; sent when it is whole."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            yield file

            def send() -> None:
                files, path = _connected(self._place)
                file.seek(0)
                with files.open_output_stream(f"{path}/{name}") as target:
                    shutil.copyfileobj(file, target)

            self._patiently(send)

    def discard(self, name: str) -> None:
        """See `PartStore`."""
        with suppress(OSError):
            files, path = _connected(self._place)
            files.delete_file(f"{path}/{name}")

    def begin(self, name: str, content: bytes) -> None:
        """See `PartStore`."""
        self.remove(last=name)
        with self.written(name) as file:
            file.write(content)

    def tidy(self) -> None:
        """See `PartStore`; an upload that was broken off leaves no object."""

    def remove(self, *, last: str = "") -> None:
        """See `PartStore`.

        Args:
            last: the file that says whose the others are goes after them.
        """
        names = self.names()

        def delete(name: str) -> None:
            files, path = _connected(self._place)
            with suppress(FileNotFoundError):
                files.delete_file(f"{path}/{name}")

        with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
            for some in (names - {last}, names & {last}):
                list(pool.map(lambda name: self._patiently(lambda: delete(name)), some))
        with suppress(OSError):  # Arrow leaves an empty object that stands for the folder
            files, path = _connected(self._place)
            files.delete_dir(path)

    def _patiently(self, attempt: Callable[[], _T], *, deadline_s: float = math.inf) -> _T:
        """Ask again where the store stumbles.

        Raises:
            OutputError: it refuses, or goes on stumbling.
        """

        def tried(_left_s: float) -> _T:
            try:
                return attempt()
            except OSError as error:
                if _FINAL.search(str(error)):
                    raise self._failed(error) from error
                raise

        try:
            return retry(tried, path=self._place, faults=(OSError,), deadline_s=deadline_s)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self._place}: cannot be used for parts; check the address, your rights and the "
            f"network ({one_line(error)})."
        )


@functools.cache
def _connected(place: str) -> tuple[fs.FileSystem, str]:
    """The file system and the path in it."""
    address, _, options = place.partition("?")
    if address.startswith("s3://") and "endpoint_override" not in options:
        options = "&".join(filter(None, (options, _s3_endpoint())))
    files, path = fs.FileSystem.from_uri(address + ("?" + options if options else ""))
    return files, path


def _s3_endpoint() -> str:
    """The server that the environment names, in AWS's or in GDAL's words; else Amazon's."""
    told = os.environ
    server = told.get("AWS_ENDPOINT_URL_S3") or told.get("AWS_ENDPOINT_URL")
    if not server and (host := told.get("AWS_S3_ENDPOINT")):
        plain = told.get("AWS_HTTPS", "YES").upper() in {"NO", "OFF", "FALSE", "0"}
        server = host if "://" in host else f"{'http' if plain else 'https'}://{host}"
    if not server:
        return ""
    parts = urlsplit(server)
    return urlencode({"endpoint_override": parts.netloc, "scheme": parts.scheme})
