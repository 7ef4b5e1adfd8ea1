"""Atomic outputs: checked before any work, written beside their target, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from geodinoseg.errors import OutputError, OutputExistsError, one_line
from geodinoseg.files.arguments import output_path
from geodinoseg.files.locks import temporary_prefix, try_lock
from geodinoseg.files.misread_names import SCHEME

PathLike = str | os.PathLike[str]

_OLD = "old"
"""Name of a replaced folder until its successor is in place."""

_unfinished: set[Path] = set()
"""Temporary folders in use by this process."""
_LONGEST_NAME = 255
"""Bytes of a file name, on the file systems of Linux."""
_LONGEST_SIDE_ENDING = len(".aux.xml")
"""Longest ending that is added to a target's name for files beside it, such as `.parts`."""

# Of a disk that is full, over quota, read-only or broken; other errors of the operating system have
# another cause and go up untouched.
_WRITE_FAULTS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}


def check_output(
    path: PathLike,
    *,
    overwrite: bool,
    suffixes: Sequence[str] = (),
    inputs: Iterable[PathLike] = (),
) -> Path:
    """Check, before any work, that a file can be written at a path, and return the path.

    Args:
        path: where the file will appear.
        overwrite: whether an existing file may be replaced.
        suffixes: accepted endings, lower case with their dot; any when empty.
        inputs: files that must not be replaced.

    Raises:
        OutputExistsError: a file exists there.
        OutputError: it is a folder, an input, in a folder that is missing or read-only, or has the
            ending of another format.
    """
    target = output_path(path)
    if os.fspath(path).startswith("/vsi") or "://" in os.fspath(path):
        raise OutputError(f"{path}: outputs are written to local files; copy it there afterwards.")
    scheme = SCHEME.match(os.fspath(target))
    if scheme:
        raise OutputError(
            f"{path}: begins with {scheme[0]!r} and would be read as an address; give another name."
        )
    _check_length(target)
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file in it.")
    if suffixes and target.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: the name must end in {' or '.join(suffixes)}.")
    check_folder_of(target)
    if any(_same_file(target, source) for source in inputs):
        raise OutputError(f"{path}: is an input of this run; give another name.")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; give another name, or --overwrite.")
    return target


def check_output_folder(
    path: PathLike, *, overwrite: bool, is_ours: Callable[[Path], bool]
) -> Path:
    """Check that an output folder can be written at a path, and return the path.

    Args:
        path: where the folder will appear.
        overwrite: whether an existing folder of ours may be replaced.
        is_ours: whether a folder is an earlier output; any other is never replaced.

    Raises:
        OutputExistsError: such a folder exists there.
        OutputError: a file or a folder of another kind is there, or its parent is not writable.
    """
    target = output_path(path)
    _check_length(target)
    check_folder_of(target)
    if target.is_dir():
        if any(target.iterdir()) and not is_ours(target):
            raise OutputError(
                f"{path}: is a folder that holds other things; give another name for the output."
            )
        if not overwrite and any(target.iterdir()):
            raise OutputExistsError(f"{path}: exists already; give another name, or --overwrite.")
    elif target.exists():
        raise OutputError(f"{path}: is a file; give the name of a folder.")
    return target


@contextmanager
def atomic_file(target: Path, *, stale_sidecars: Iterable[Path] = ()) -> Iterator[Path]:
    """Give a path to write to; the file appears at the target only when the block ends well.

    The path lies in a new folder beside the target, under the target's own name. Sidecars that are
    written next to it (`landcover.tif.aux.xml`, `landcover.dbf`) are moved before it, so that a
    reader who sees the main file sees all of it. On an error nothing is left.

    Args:
        target: where the file will appear.
        stale_sidecars: of the file that was at the target; those that are not replaced are removed,
            since readers would take them for the new file's.

    Raises:
        OutputError: the files cannot be put in place.
    """
    with _folder_beside(target) as folder:
        yield folder / target.name
        written = [entry for entry in folder.iterdir() if entry.name != target.name]
        for entry in [*written, folder / target.name]:
            _sync(entry)
        for part in {*stale_sidecars} - {target.parent / entry.name for entry in written}:
            part.unlink(missing_ok=True)
        try:
            for entry in [*written, folder / target.name]:
                os.replace(entry, target.parent / entry.name)  # the atomic one
        except (IsADirectoryError, FileNotFoundError) as error:  # since it was checked
            raise OutputError(f"{target}: could not be put there: {one_line(error)}.") from error
        _sync_folder(target.parent)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a new folder to fill; it appears at the target only when the block ends well.

    A folder that was at the target is moved away first and deleted last.
    """
    with _folder_beside(target) as folder:
        fresh, old = folder / "new", folder / _OLD
        fresh.mkdir()
        yield fresh
        for entry in fresh.rglob("*"):
            if entry.is_file():
                _sync(entry)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        _sync_folder(target.parent)


def remove_folder(target: Path) -> None:
    """Remove an output folder: its name disappears at once, then its files one by one."""
    with _folder_beside(target) as folder:
        target.rename(folder / "unwanted")
        _sync_folder(target.parent)


def remove_unfinished() -> None:
    """Remove the temporary folders of this process, before it exits without cleaning up.

    A folder that holds the replaced version of a target is kept, so that the next run can
    restore it.
    """
    for folder in tuple(_unfinished):
        if not (folder / _OLD).exists():
            shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind(folder: Path, prefix: str, *, target: Path | None = None) -> None:
    """Remove temporary folders of processes that were killed; those still in use stay.

    Args:
        folder: where they lie.
        prefix: how their names begin.
        target: whose they are. A folder that was moved away from there for a successor that never
            came is moved back first.
    """
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for path in found:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # removed meanwhile, or not a folder
        try:
            if try_lock(handle):
                old = Path(path, _OLD)
                if target is not None and old.exists() and not target.exists():
                    old.rename(target)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    try:
        prefix = temporary_prefix(target)
        remove_left_behind(target.parent, prefix, target=target)
        folder, handle = _held_folder(target.parent, prefix)
        _unfinished.add(folder)
    except OSError as error:
        raise OutputError(f"{target}: cannot write there: {one_line(error)}.") from error
    try:
        yield folder
    except OSError as error:
        if error.errno not in _WRITE_FAULTS:
            raise
        raise OutputError(f"{target}: could not be written: {one_line(error)}.") from error
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            _unfinished.discard(folder)
            os.close(handle)


def _held_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and a handle whose lock says that it is in use."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process took it for one that was left behind
        if try_lock(handle) is not False and folder.exists():
            return folder, handle
        os.close(handle)


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _sync_folder(path: Path) -> None:
    """Make new names in a folder survive a power cut; not every network mount supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_length(target: Path) -> None:
    longest = _LONGEST_NAME - _LONGEST_SIDE_ENDING
    if len(os.fsencode(target.name)) > longest:
        raise OutputError(
            f"{target.name[:40]}...: is too long a name; give one of at most {longest} bytes, as "
            f"the files beside it have longer names."
        )


def check_folder_of(target: Path) -> None:
    """Check that files can be created where a target would lie.

    Raises:
        OutputError: the folder is missing or read-only, or the name is not UTF-8.
    """
    folder = target.parent
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{str(target)!a}: the name is not UTF-8; give another.") from error
    if not folder.exists():
        raise OutputError(f"{target}: the folder {folder} does not exist; make it first.")
    if not folder.is_dir():
        raise OutputError(f"{target}: {folder} is a file, not a folder.")
    try:
        # By trial, since access rights do not tell: root may write to a read-only disk.
        tempfile.TemporaryDirectory(prefix=temporary_prefix(target), dir=folder).cleanup()
    except OSError as error:
        raise OutputError(
            f"{target}: the folder {folder} cannot be written to ({error.strerror}); give another."
        ) from error


def _same_file(target: Path, source: PathLike) -> bool:
    try:
        return target.samefile(source)
    except OSError:
        return False
