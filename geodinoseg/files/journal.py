"""The journal of a batch: what became of each scene, in a file that survives a kill.

Lines of JSON, appended and synced one by one; a line that a kill cut off is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from geodinoseg.errors import OutputError, one_line
from geodinoseg.files.locks import lock_output

JOURNAL = "geodinoseg-journal.jsonl"
_HEAD = {"format": "geodinoseg-journal", "format_version": 1}

_GROUPS = ("files", "side_files")
Status = Literal["started", "done", "failed"]
"""Of a map: begun, written, or failed."""


class Journal:
    """What became of the maps of a folder; made by `open_journal`, which holds its lock."""

    def __init__(self, path: Path, records: Iterable[Mapping[str, Any]]) -> None:
        self.path = path
        self._last: dict[str, Mapping[str, Any]] = {}
        self._unfinished: dict[str, set[str]] = {}
        for record in records:
            self._apply(record)

    def add(self, output: str, status: Status, **facts: Any) -> None:
        """Append a line about a map, which is known by the file name of its class raster."""
        if status == "failed" and output in self._unfinished:
            facts["new"] = sorted(filter(self._exists, self._unfinished[output]))
        record = {"output": output, "status": status, **facts}
        _append(self.path, record)
        self._apply(record)

    def has(self, output: str, key: str, status: Status) -> bool:
        """Whether a map has reached a stage, under this key, and its files are whole."""
        last = self._last.get(output, {})
        if (last.get("status"), last.get("key")) != (status, key):
            return False
        return all(_is_whole(self.path.parent / name, facts) for name, facts in _files(last))

    def replaceable(self, output: str, key: str) -> frozenset[str]:
        """Names of files that may be replaced without `overwrite`.

        Those that a killed run wrote or was about to write, or a failed one left; and whole ones of
        the same key, side files included, since others of the map may be lost.
        """
        last = self._last.get(output, {})
        files = _files(last) + _files(last, "side_files") if last.get("key") == key else []
        whole = (name for name, facts in files if _is_whole(self.path.parent / name, facts))
        return frozenset(self._unfinished.get(output, ())) | frozenset(whole)

    def whole_files(self, names: Collection[str]) -> list[tuple[str, str, str]]:
        """Which of some files are as finished maps left them: map, group of files, name."""
        return [
            (output, group, name)
            for output, last in self._last.items()
            for group in _GROUPS
            for name, facts in _files(last, group)
            if last.get("status") == "done" and name in names
            if _is_whole(self.path.parent / name, facts)
        ]

    def renew(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Record the present content of files that `whole_files` named before a change."""
        changed: dict[str, dict[str, dict[str, Any]]] = {}
        for output, group, name in files:
            present = file_facts(self.path.parent / name)
            changed.setdefault(output, {}).setdefault(group, {})[name] = present
        for output, groups in changed.items():
            last = dict(self._last[output])
            for group, facts in groups.items():
                last[group] = {**last[group], **facts}
            self.add(output, "done", **{k: last[k] for k in last.keys() - {"output", "status"}})

    def _apply(self, record: Mapping[str, Any]) -> None:
        output = str(record.get("output"))
        if record.get("status") == "started" or "new" in record:
            self._unfinished[output] = set(map(str, record.get("new", ())))
        if record.get("status") == "done":
            self._unfinished.pop(output, None)
        if record.get("status") != "failed":
            self._last[output] = record

    def _exists(self, name: str) -> bool:
        return (self.path.parent / name).exists()


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal of a folder, which is created where missing, for one process at a time.

    Raises:
        OutputError: another process holds it, another file has its name, or it cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created ({error.strerror}); give another."
        ) from error
    path = folder / JOURNAL
    with lock_output(path):
        try:
            text = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {one_line(error)}.") from error
        if text.strip() and not _is_ours(text):
            raise OutputError(f"{path}: is not a geodinoseg journal; move it away.")
        if not text:
            _append(path, _HEAD)
        elif not text.endswith(b"\n"):
            _append_bytes(path, b"\n")
        yield Journal(path, _records(text))


@contextmanager
def changing(paths: Sequence[Path]) -> Iterator[None]:
    """Change files of finished maps within the block; a batch in their folders knows them after it.

    Otherwise the next run of the batch would take the changed maps for files of someone else.

    Raises:
        OutputError: the batch is running.
    """
    names = {path.name for path in paths}
    with ExitStack() as stack:
        folders = dict.fromkeys(path.parent for path in paths)
        journals = [
            stack.enter_context(open_journal(folder))
            for folder in folders
            if (folder / JOURNAL).is_file()
        ]
        whole = [journal.whole_files(names) for journal in journals]
        yield
        for journal, files in zip(journals, whole, strict=True):
            journal.renew(files)


def file_facts(path: Path) -> list[Any]:
    """Size, modification time in ns, and SHA-256 of a file, to recognize it later."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, _digest(path)]


def _is_whole(path: Path, facts: list[Any]) -> bool:
    """Whether a file is unchanged; a copy, with another modification time, is read."""
    try:
        size, modified_ns, digest = facts
        status = path.stat()
        if status.st_size != size:
            return False
        return bool(status.st_mtime_ns == modified_ns or _digest(path) == digest)
    except (OSError, ValueError, TypeError):
        return False


def _files(record: Mapping[str, Any], group: str = "files") -> list[tuple[str, list[Any]]]:
    files = record.get(group)
    return list(files.items()) if isinstance(files, dict) else []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_ours(text: bytes) -> bool:
    first = _record(text.partition(b"\n")[0])
    return first is not None and _HEAD.items() <= first.items()


def _records(text: bytes) -> list[dict[str, Any]]:
    found = (_record(line) for line in text.splitlines()[1:])
    return [record for record in found if record is not None and "output" in record]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _append(path: Path, record: Mapping[str, Any]) -> None:
    _append_bytes(path, json.dumps(record).encode() + b"\n")


def _append_bytes(path: Path, line: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: could not be written: {one_line(error)}.") from error
