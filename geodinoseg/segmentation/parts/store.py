"""Where the parts of a run lie: a folder; or a place in an object store, see `object_store`."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from geodinoseg.errors import OutputError
from geodinoseg.files.atomic import (
    atomic_file,
    atomic_folder,
    check_folder_of,
    remove_folder,
    remove_left_behind,
)
from geodinoseg.files.locks import OURS, lock_output


class PartStore(Protocol):
    """Files of one run, under flat names; each appears at its name whole, or not at all.

    Several processes may write to one store at once.
    """

    @property
    def place(self) -> str:
        """The folder or address, as other processes are told it."""

    def check(self) -> None:
        """Say before any work that nothing can be written here.

        Raises:
            OutputError: the folder in which it would lie is missing or read-only; the object store
                cannot be reached.
        """

    def locked(self) -> AbstractContextManager[None]:
        """Be the only run here while the block runs, where the storage knows locks.

        Raises:
            OutputError: another run is.
        """

    def is_there(self) -> bool:
        """Whether anything lies here that is somebody's."""

    def names(self) -> frozenset[str]:
        """Of the files."""

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file to read and to seek in.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
            OutputError: the object store cannot be reached.
        """

    def written(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file to write one byte after the other; it appears when the block ends well.

        Raises:
            OutputError: it cannot be written.
        """

    def discard(self, name: str) -> None:
        """Remove a file, if that can be done."""

    def begin(self, name: str, content: bytes) -> None:
        """Leave nothing here but one file.

        Raises:
            OutputError: it cannot be written, or what was here not be removed.
        """

    def tidy(self) -> None:
        """Remove what killed processes left half-written."""

    def remove(self, *, last: str) -> None:
        """Remove all of it.

        Args:
            last: the file that tells whose the others are; it goes after them.

        Raises:
            OutputError: it cannot be removed.
        """


class FolderStore:
    """Parts in a folder of this machine, or of a file system that machines share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        """See `PartStore`."""
        return os.fspath(self._folder)

    def check(self) -> None:
        """See `PartStore`."""
        check_folder_of(self._folder)

    def locked(self) -> AbstractContextManager[None]:
        """See `PartStore`."""
        return lock_output(self._folder)

    def is_there(self) -> bool:
        """See `PartStore`; a link that leads nowhere counts."""
        return os.path.lexists(self._folder)

    def names(self) -> frozenset[str]:
        """See `PartStore`."""
        try:
            return frozenset(path.name for path in self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """See `PartStore`."""
        path = self._folder / name
        # What somebody put in a file's place must not be waited for, nor a link be followed.
        if self._folder.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
            raise FileNotFoundError(f"{path} is no file")
        with path.open("rb") as file:
            yield file

    @contextmanager
    def written(self, name: str) -> Iterator[IO[bytes]]:
        """See `PartStore`."""
        with atomic_file(self._folder / name) as beside, beside.open("wb") as file:
            yield file

    def discard(self, name: str) -> None:
        """See `PartStore`."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def begin(self, name: str, content: bytes) -> None:
        """See `PartStore`."""
        with atomic_folder(self._folder) as fresh:
            (fresh / name).write_bytes(content)

    def tidy(self) -> None:
        """See `PartStore`."""
        remove_left_behind(self._folder, OURS)

    def remove(self, *, last: str) -> None:  # noqa: ARG002 (a folder goes at once)
        """See `PartStore`."""
        remove_folder(self._folder)


def part_store(output: Path, under: str | Path | None = None) -> PartStore:
    """Where the parts of an output go: `<name>.parts`, beside it or elsewhere. Asks no server.

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
    place = os.fspath(under)
    if "://" not in place:
        return store_at(os.path.join(place, name))  # `Path` would mend addresses
    address, mark, options = place.partition("?")
    folder = address if address.endswith("://") else address.rstrip("/")
    return store_at(f"{folder}/{name}{mark}{options}")


def store_at(place: str) -> PartStore:
    """The store at a folder or an address.

    Raises:
        OutputError: an address of a kind that holds no parts.
    """
    if "://" not in place and not place.startswith("/vsi"):
        return FolderStore(Path(place))
    from geodinoseg.segmentation.parts.object_store import SCHEMES, ObjectStore  # noqa: PLC0415 (pyarrow.fs is large)

    if not place.startswith(SCHEMES):
        raise OutputError(
            f"{place}: parts cannot go there; give a folder, or an address that begins with "
            f"{', '.join(SCHEMES)}."
        )
    return ObjectStore(place)
