"""File operations that fail on request: a full disk, a broken one, a process that dies there."""

from __future__ import annotations

import errno
import io
import os
from contextlib import contextmanager

import pytest
import rasterio.io
import rasterio.shutil

from geodinoseg.segmentation.parts.part_file import PartWriter

_OPERATIONS = [
    *((os, name) for name in ("open", "mkdir", "replace", "rename", "fsync", "unlink", "rmdir")),
    (io, "open"),
    (PartWriter, "_put"),
    (rasterio, "open"),
    (rasterio.shutil, "copy"),
]


class Died(BaseException):
    """The process is no more: nothing catches it, and nothing more happens on the disk."""


class Faults:
    """Counts file operations, and lets one of them fail."""

    def __init__(self, at: int | None, how: str) -> None:
        self.count = 0
        self.hit = False
        self._at, self._how = at, how

    def pass_by(self) -> None:
        """An operation is about to happen."""
        self.count += 1
        if self._at is None:
            return
        if self._how == "death" and self.count >= self._at:
            self.hit = True
            raise Died
        if self.count == self._at:
            self.hit = True
            number = {"full": errno.ENOSPC, "broken": errno.EIO}[self._how]
            raise OSError(number, os.strerror(number))


@contextmanager
def faults(at: int | None = None, how: str = "full"):
    """Let the at-th file operation of the block fail, from 1; None only counts.

    Args:
        at: which.
        how: "full" and "broken" fail once, as operations do that are tried again; after "death"
            all fail, as a process that was killed does nothing more.
    """
    found = Faults(at, how)

    def wrapped(function):
        def operation(*arguments, **options):
            found.pass_by()
            return function(*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _OPERATIONS:
            patch.setattr(owner, name, wrapped(getattr(owner, name)))
        yield found
