"""Parts in an object store: S3 and compatible servers, Google Cloud Storage, Azure.

An object appears when its upload is complete, so a killed process leaves none that is cut off.
There are no locks: only the key in each part keeps two runs apart.
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
from typing_extensions import override

from geodinoseg.errors import OutputError, one_line
from geodinoseg.rasters.retry import retry
from geodinoseg.segmentation.parts.store import PartStore

SCHEMES = ("s3://", "gs://", "gcs://", "abfs://", "abfss://")
"""Of the addresses."""

_IN_MEMORY_BYTES = 16 << 20
"""Of a part in transfer; larger ones pass through a temporary file."""
_FIRST_DEADLINE_S = 10.0
"""For the first request: a mistyped address should not take minutes to be refused."""
_DELETED_AT_ONCE = 16
_PART = re.compile(r"part-\d+")
# Refusals that a retry does not change.
_FINAL = re.compile(r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_|SIGNATURE|FORBIDDEN|\b(400|401|403)\b")

_T = TypeVar("_T")


class ObjectStore(PartStore):
    """The objects under one address."""

    def __init__(self, place: str) -> None:
        """Keep an address, such as `s3://bucket/runs/map.tif.parts`; sends no request.

        After a `?` may follow options of `pyarrow.fs.FileSystem.from_uri`, such as `region` or
        `endpoint_override`.
        """
        self._place = place

    @property
    @override
    def place(self) -> str:
        return self._place

    @override
    def check(self) -> None:
        def bucket_exists() -> bool:
            files, path = _connect(self._place)
            bucket = files.get_file_info(path.partition("/")[0])
            return bool(bucket.type != fs.FileType.NotFound)

        if not self._retry(bucket_exists, deadline_s=_FIRST_DEADLINE_S):
            raise OutputError(
                f"{self._place}: there is no such bucket; make it, or check the name."
            )

    @override
    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    def exists(self) -> bool:
        # Parts alone may come from a worker of an earlier run that was still writing.
        return any(_PART.fullmatch(name) is None for name in self.names())

    @override
    def names(self) -> frozenset[str]:
        def list_objects() -> frozenset[str]:
            files, path = _connect(self._place)
            found = files.get_file_info(fs.FileSelector(path, allow_not_found=True))
            return frozenset(info.base_name for info in found if info.type == fs.FileType.File)

        return self._retry(list_objects)

    @override
    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Fetch the whole object first."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:

            def fetch() -> bool:
                files, path = _connect(self._place)
                file.seek(0)
                file.truncate()
                try:
                    with files.open_input_stream(f"{path}/{name}") as source:
                        shutil.copyfileobj(source, file)
                except FileNotFoundError:
                    return False
                return True

            if not self._retry(fetch):
                raise FileNotFoundError(f"{self._place}: holds no {name}")
            file.seek(0)
            yield file

    @override
    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """Send the object when it is whole."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            yield file

            def send() -> None:
                files, path = _connect(self._place)
                file.seek(0)
                with files.open_output_stream(f"{path}/{name}") as target:
                    shutil.copyfileobj(file, target)

            self._retry(send)

    @override
    def discard(self, name: str) -> None:
        with suppress(OSError):
            files, path = _connect(self._place)
            files.delete_file(f"{path}/{name}")

    @override
    def begin(self, name: str, content: bytes) -> None:
        self.remove(last=name)
        with self.create(name) as file:
            file.write(content)

    @override
    def tidy(self) -> None:
        """Do nothing: an upload that was broken off leaves no object."""

    @override
    def remove(self, *, last: str = "") -> None:
        names = self.names()

        def delete(name: str) -> None:
            files, path = _connect(self._place)
            with suppress(FileNotFoundError):
                files.delete_file(f"{path}/{name}")

        with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
            for some in (names - {last}, names & {last}):
                list(pool.map(lambda name: self._retry(lambda: delete(name)), some))
        with suppress(OSError):  # Arrow leaves an empty object that stands for the folder
            files, path = _connect(self._place)
            files.delete_dir(path)

    def _retry(self, attempt: Callable[[], _T], *, deadline_s: float = math.inf) -> _T:
        """Repeat a request that fails, unless the store refuses it."""

        def once(_left_s: float) -> _T:
            try:
                return attempt()
            except OSError as error:
                if _FINAL.search(str(error)):
                    raise self._failed(error) from error
                raise

        try:
            return retry(once, path=self._place, faults=(OSError,), deadline_s=deadline_s)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self._place}: cannot be used for parts; check the address, your rights and the "
            f"network ({one_line(error)})."
        )


@functools.cache
def _connect(place: str) -> tuple[fs.FileSystem, str]:
    """The file system, and the path in it."""
    address, _, options = place.partition("?")
    if address.startswith("s3://") and "endpoint_override" not in options:
        options = "&".join(filter(None, (options, _s3_endpoint())))
    files, path = fs.FileSystem.from_uri(address + ("?" + options if options else ""))
    return files, path


def _s3_endpoint() -> str:
    """Options for the server that AWS's or GDAL's variables name; empty for Amazon's own."""
    given = os.environ
    server = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL")
    if not server and (host := given.get("AWS_S3_ENDPOINT")):
        plain = given.get("AWS_HTTPS", "YES").upper() in {"NO", "OFF", "FALSE", "0"}
        server = host if "://" in host else f"{'http' if plain else 'https'}://{host}"
    if not server:
        return ""
    parts = urlsplit(server)
    return urlencode({"endpoint_override": parts.netloc, "scheme": parts.scheme})
