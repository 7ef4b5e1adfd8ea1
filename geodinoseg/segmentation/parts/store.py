"""Storage for the files of a run: a folder beside the output, another one, or an object store."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from typing_extensions import override

from geodinoseg.errors import OutputError
from geodinoseg.files.arguments import path_text
from geodinoseg.files.atomic import (
    PathLike,
    atomic_file,
    atomic_folder,
    check_folder_of,
    remove_folder,
    remove_left_behind,
)
from geodinoseg.files.locks import OURS, lock_output


class PartStore(Protocol):
    """Files of one run, under flat names; each appears at its name whole, or not at all.

    Several processes may write to one store at once. What cannot be written, removed or reached
    raises OutputError.
    """

    @property
    def place(self) -> str:
        """The folder or address, as it is passed to other processes."""

    def check(self) -> None:
        """Check, before any work, that files can be written here."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only run here while the block runs, where the storage supports locks."""

    def exists(self) -> bool:
        """Whether anything lies here that may belong to somebody."""

    def names(self) -> frozenset[str]:
        """Names of the files."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file to read and to seek in.

        Raises:
            FileNotFoundError: it does not exist.
            OSError: it cannot be read.
        """

    def create(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file to write without seeking; it appears when the block ends well."""

    def discard(self, name: str) -> None:
        """Remove a file, if possible."""

    def begin(self, name: str, content: bytes) -> None:
        """Replace everything here by one file."""

    def tidy(self) -> None:
        """Remove what killed processes left half-written."""

    def remove(self, *, last: str) -> None:
        """Remove everything.

        Args:
            last: the file that says whose the others are; it is removed after them.
        """


class FolderStore(PartStore):
    """Parts in a folder of this machine, or of a file system that machines share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    @override
    def place(self) -> str:
        return os.fspath(self._folder)

    @override
    def check(self) -> None:
        check_folder_of(self._folder)

    @override
    def lock(self) -> AbstractContextManager[None]:
        return lock_output(self._folder)

    @override
    def exists(self) -> bool:
        return os.path.lexists(self._folder)  # a broken link counts

    @override
    def names(self) -> frozenset[str]:
        try:
            return frozenset(path.name for path in self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    @override
    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        path = self._folder / name
        # A pipe in a file's place would block, and a link must not be followed.
        if self._folder.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
            raise FileNotFoundError(f"{path} is not a file")
        with path.open("rb") as file:
            yield file

    @override
    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        with atomic_file(self._folder / name) as beside, beside.open("wb") as file:
            yield file

    @override
    def discard(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    @override
    def begin(self, name: str, content: bytes) -> None:
        with atomic_folder(self._folder) as fresh:
            (fresh / name).write_bytes(content)

    @override
    def tidy(self) -> None:
        remove_left_behind(self._folder, OURS)

    @override
    def remove(self, *, last: str) -> None:
        remove_folder(self._folder)  # at once, `last` included


def part_store(output: Path, under: PathLike | None = None) -> PartStore:
    """The store for the parts of an output, `<name>.parts`. Sends no request to a server.

    Args:
        output: the class raster.
        under: a folder, or an address in an object store such as `s3://bucket/runs`; the output's
            own folder where not given.

    Raises:
        OutputError: an address of another kind.
    """
    name = f"{output.name}.parts"
    if under is None:
        return FolderStore(output.parent / name)
    place = path_text(under, "parts", "a folder or an address", error=OutputError)
    if "://" not in place:
        return store_at(os.path.join(place, name))  # `Path` would normalize addresses
    address, mark, options = place.partition("?")
    folder = address if address.endswith("://") else address.rstrip("/")
    return store_at(f"{folder}/{name}{mark}{options}")


def store_at(place: str) -> PartStore:
    """The store at a folder or an address; raises OutputError for an unsupported address."""
    if "://" not in place and not place.startswith("/vsi"):
        return FolderStore(Path(place))
    from geodinoseg.segmentation.parts.object_store import SCHEMES, ObjectStore  # noqa: PLC0415 (pyarrow.fs is large)

    if not place.startswith(SCHEMES):
        raise OutputError(
            f"{place}: parts cannot be stored there; give a folder, or an address that begins with "
            f"{', '.join(SCHEMES)}."
        )
    return ObjectStore(place)
