"""The parts of a run: which chunks are done, and that each part is whole and of this run.

<output>.parts/       a folder, or an address in an object store; see `location`
  manifest.json       scene, model and settings by their content, and the key made of them
  part-00007          the rows of chunk 7; see `part_file`
  appearing.json      the outputs, while they are put in place

A part carries the key, its chunk and a digest, so that any number of processes can write parts of
one run without a common file to update.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodinoseg.errors import OutputError
from geodinoseg.rasters.map_rows import Layer
from geodinoseg.redaction import redact_path
from geodinoseg.segmentation.parts.part_file import Part, PartName, PartWriter, open_part
from geodinoseg.segmentation.parts.store import PartStore
from geodinoseg.segmentation.tile_grid import Chunk

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_COMMITTING = "appearing.json"
_PART = "part-"
_FORMAT, _FORMAT_VERSION = "geodinoseg-parts", 1
_LARGEST_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the bytes of a map depend on, as plain JSON. Names no path and no address."""

    scene: Mapping[str, Any]
    """Content of the scene; see `scene_fingerprint`."""
    model: Mapping[str, Any]
    """Content of the model; empty where it is unknown, and then no run can be resumed."""
    settings: Mapping[str, Any]
    """Tiles, batches, panels, chunks, layers, version."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        facts = {"scene": self.scene, "model": self.model, "settings": self.settings}
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain

    @property
    def is_resumable(self) -> bool:
        """Whether another process can recognize the run."""
        return bool(self.model)

    @property
    def key(self) -> str:
        """64 hexadecimal digits that change when any of it does."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


class Parts:
    """The parts of one run, in a store."""

    def __init__(self, store: PartStore, key: str, layers: Sequence[Layer], *, nodata: int) -> None:
        """Made by `open_parts` and `join_parts`; nodata is the class id of pixels without one."""
        self.store = store
        self.key = key
        self._layers = tuple(layers)
        self._nodata = nodata

    def missing(self, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
        """The chunks without a whole part of this run; reads all of each part."""
        there = self.store.names()
        return tuple(
            chunk for chunk in chunks if _file_name(chunk) not in there or not self._is_whole(chunk)
        )

    @contextmanager
    def read(self, chunk: Chunk) -> Iterator[Part]:
        """The part of a chunk, checked and open while the block runs."""
        with ExitStack() as files:
            part = self._open(chunk, files)
            if part is None:
                raise OutputError(
                    f"{self.store.place}: {_file_name(chunk)} is no longer whole; run it again."
                )
            yield part

    def absent(self, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
        """The chunks without a part, whole or not; lists the names and reads no part."""
        names = self.store.names()
        return tuple(chunk for chunk in chunks if _file_name(chunk) not in names)

    def count(self) -> int:
        """Number of parts, whole or not."""
        return _count_parts(self.store)

    @contextmanager
    def write(self, chunk: Chunk) -> Iterator[PartWriter]:
        """Write the part of a chunk; it appears when the block ends well. Safe to repeat."""
        with self.store.create(_file_name(chunk)) as file:
            writer = PartWriter(file, self._name(chunk), self._layers, nodata=self._nodata)
            yield writer
            writer.finish()

    @contextmanager
    def committing(self, outputs: Iterable[Path]) -> Iterator[None]:
        """Record the outputs as this run's own while they are put in place.

        Only a killed process leaves the record behind; see `interrupted_outputs`.
        """
        with self.store.create(_COMMITTING) as record:
            record.write(json.dumps([str(path.resolve()) for path in outputs]).encode())
        try:
            yield
        except BaseException:
            self.store.discard(_COMMITTING)
            raise

    def _is_whole(self, chunk: Chunk) -> bool:
        with ExitStack() as files:
            return self._open(chunk, files) is not None

    def _open(self, chunk: Chunk, files: ExitStack) -> Part | None:
        """The part of a chunk; None where it is absent, damaged or of another run."""
        try:
            file = files.enter_context(self.store.open(_file_name(chunk)))
        except OSError as error:
            logger.debug("part %d is computed again: %s", chunk.index, error)
            return None
        return open_part(file, self._name(chunk), self._layers)

    def _name(self, chunk: Chunk) -> PartName:
        return PartName(key=self.key, chunk=chunk.index, window=chunk.core)


def check_parts(store: PartStore) -> None:
    """Check, before any work, that parts can be stored somewhere.

    Raises:
        OutputError: they cannot, or something else lies there.
    """
    store.check()
    _own_manifest(store)


def interrupted_outputs(store: PartStore) -> frozenset[Path]:
    """Outputs that a killed run may have put in place while others are missing.

    They are that run's own: resuming it may replace them.
    """
    if _read_manifest(store) is None:
        return frozenset()
    try:
        with store.open(_COMMITTING) as record:
            return frozenset(Path(path) for path in json.loads(record.read()))
    except (OSError, ValueError, TypeError, RecursionError):
        return frozenset()


def recorded_batch_size(store: PartStore) -> int | None:
    """The batch size of the run whose parts lie in a store; None without one."""
    manifest = _read_manifest(store)
    size = manifest["run"]["settings"].get("batch_size") if manifest else None
    return size if isinstance(size, int) and size > 0 else None


def stored_parts(store: PartStore) -> int:
    """Number of parts in a store, whole or not; 0 if no run has begun there."""
    return 0 if _read_manifest(store) is None else _count_parts(store)


@contextmanager
def open_parts(
    store: PartStore,
    run: Run,
    layers: Sequence[Layer],
    *,
    nodata: int,
    chunks: Sequence[Chunk],
    resume: bool,
) -> Iterator[Parts]:
    """Open the parts of a run, existing ones included; the caller holds the locks.

    When the block ends well they are removed. On an error they are kept for the next run, unless no
    part was finished.

    Args:
        store: where they lie.
        run: compared with that of existing parts.
        layers: of the map.
        nodata: class id of pixels without one.
        chunks: of the plan.
        resume: keep existing parts; False starts over.

    Raises:
        OutputError: other files or another run's parts lie there, or nothing can be written.
    """
    manifest = _own_manifest(store)
    parts = Parts(store, run.key, layers, nodata=nodata)
    if manifest is None or not resume or not manifest["run"]["model"]:
        store.begin(MANIFEST, _manifest(run, chunks))
    else:
        _check_same(store, manifest, run)
        store.tidy()
    try:
        yield parts
    except BaseException:
        with contextlib.suppress(OutputError):  # the first error is the one to report
            if not (run.is_resumable and parts.count()):
                store.remove(last=MANIFEST)
        raise
    try:
        store.remove(last=MANIFEST)
    except OutputError as error:  # the outputs are in place, and that is what counts
        logger.warning(
            "%s is no longer needed; remove it by hand (%s)", redact_path(store.place), error
        )


def join_parts(store: PartStore, run: Run, layers: Sequence[Layer], *, nodata: int) -> Parts:
    """The parts of a run that the client has opened, for a worker that writes some of them.

    A worker that sees another scene, model or version raises OutputError.
    """
    manifest = _read_manifest(store)
    if manifest is None:
        raise OutputError(
            f"{store.place}: is not visible here; parts must be on storage that all workers share: "
            f"write the output there, or give such a place with --parts."
        )
    if manifest["run"] != run.to_json():
        difference = _difference(manifest["run"], run.to_json())
        raise OutputError(
            f"{store.place}: does not match what this worker sees: {difference}. All workers must "
            f"see the same scene and model, under the same names, on devices of one kind, with the "
            f"same geodinoseg."
        )
    return Parts(store, run.key, layers, nodata=nodata)


def _manifest(run: Run, chunks: Sequence[Chunk]) -> bytes:
    manifest = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "key": run.key,
        "chunks": len(chunks),
        "run": run.to_json(),
    }
    return (json.dumps(manifest, indent=2) + "\n").encode()


def _read_manifest(store: PartStore) -> dict[str, Any] | None:
    """The manifest of a store; None where it has none that is valid."""
    try:
        with store.open(MANIFEST) as file:
            text = file.read(_LARGEST_MANIFEST_BYTES)
        manifest = json.loads(text)
        ours = (manifest["format"], manifest["format_version"]) == (_FORMAT, _FORMAT_VERSION)
        named = all(isinstance(manifest["run"][name], dict) for name in Run.__slots__)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return manifest if ours and named else None


def _own_manifest(store: PartStore) -> dict[str, Any] | None:
    """The manifest of a store that holds parts; None if nothing lies there, else OutputError."""
    if not store.exists():
        return None
    manifest = _read_manifest(store)
    if manifest is None:
        raise OutputError(
            f"{store.place}: is not a geodinoseg parts folder, and parts would be stored there; "
            f"move it away, or give the output another name."
        )
    return manifest


def _check_same(store: PartStore, manifest: Mapping[str, Any], run: Run) -> None:
    if manifest.get("key") == run.key and manifest["run"] == run.to_json():
        return
    raise OutputError(
        f"{store.place}: holds {_count_parts(store)} of {manifest.get('chunks')} parts of another "
        f"run: {_difference(manifest['run'], run.to_json())}. Repeat that run to resume it, or "
        f"start over with --no-resume."
    )


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    for what in ("scene", "model"):
        if there[what] != here[what]:
            return f"its {what} is a different one or has changed since"
    there, here = there["settings"], here["settings"]
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    changes = [f"{n} was {str(there.get(n))[:40]}, is {str(here.get(n))[:40]} now" for n in names]
    return "; ".join(changes) or "its manifest was changed"


def _file_name(chunk: Chunk) -> str:
    return f"{_PART}{chunk.index:05d}"


def _count_parts(store: PartStore) -> int:
    return sum(name.startswith(_PART) for name in store.names())
