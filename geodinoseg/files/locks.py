"""Locks on outputs, which the operating system drops when the process that holds them ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from geodinoseg.errors import OutputError, one_line

logger = logging.getLogger(__name__)

OURS = ".geodinoseg-"
"""Prefix of temporary files and folders."""

# Of a file system without locks, as some network mounts are; not of a lock that another holds.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.ENOSYS}


@lru_cache(maxsize=64)
def temporary_prefix(target: Path) -> str:
    """Prefix of the temporary files of one target.

    A digest of its name, which may be too long: some file systems end names at 255 bytes.
    """
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]
    return f"{OURS}{digest}-"


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder until the handle is closed or the process ends.

    Returns:
        True where it is locked now, False where another process holds it, None where the file
        system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def lock_output(target: Path) -> Iterator[None]:
    """Be the only process that writes an output while the block runs.

    The lock file lies beside the output. One that a killed process left does not block, since the
    lock itself ended with the process.

    Raises:
        OutputError: another process is writing the output, or no file can be made beside it.
    """
    path = target.parent / f"{temporary_prefix(target)}lock"
    handle = _held(target, path)
    try:
        yield
    finally:
        try:
            # While it is still held: a process that waits for it notices that it is another file.
            with contextlib.suppress(OSError):  # one that stays does not block
                path.unlink()
        finally:
            os.close(handle)


def check_unlocked(target: Path) -> None:
    """Raise OutputError where another process is writing an output."""
    path = target.parent / f"{temporary_prefix(target)}lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if try_lock(handle) is False:
            raise _busy(target, handle)
    finally:
        os.close(handle)


def _held(target: Path, path: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(f"{target}: cannot write there: {one_line(error)}.") from error
        locked = try_lock(handle)
        if locked is False:
            busy = _busy(target, handle)
            os.close(handle)
            raise busy
        if locked is None:
            logger.warning(
                "%s: its file system has no locks; make sure that no other run writes it.", target
            )
        if locked is None or _is_still(path, handle):
            with contextlib.suppress(OSError):  # a full disk; the lock holds without it
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
            return handle
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    """Whether the locked file is the one at the path; its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _busy(target: Path, handle: int) -> OutputError:
    number = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    who = f" (process {number})" if number.isdigit() else ""
    return OutputError(
        f"{target}: another geodinoseg{who} is writing it; wait for it, or give another name."
    )
