"""The parts of a run: which chunks are done, and that they are this run's and whole.

<output>.parts/         a folder, or a place in an object store; see `part_store`
  manifest.json       scene, model and settings by their content, and the key made of them
  part-00007          what chunk 7 left; see `class_rasters.part_file`
  appearing.json      the outputs, while they are put in place

A part is written beside its name, synced, and renamed; it carries the key, its chunk and a digest,
so that any number of processes can write parts of one run without a common file to rewrite.
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
from geodinoseg.rasters.map_writer import Layer
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
    """Content of the scene; see `scene_identity`."""
    model: Mapping[str, Any]
    """Content of the model; empty where nothing tells it, and then no run can be resumed."""
    settings: Mapping[str, Any]
    """Tiles, batches, panels, cut into chunks, outputs, version."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        facts = {"scene": self.scene, "model": self.model, "settings": self.settings}
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain

    @property
    def is_resumable(self) -> bool:
        """Whether another process can tell that a run is the same."""
        return bool(self.model)

    @property
    def key(self) -> str:
        """64 hexadecimal digits that change when any of it does."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


class Parts:
    """The parts of one run, in a store."""

    def __init__(self, store: PartStore, key: str, layers: Sequence[Layer], *, nodata: int) -> None:
        """Look at a store; opens nothing. `open_parts` begins one.

        Args:
            store: where they lie.
            key: of the run.
            layers: what the map holds.
            nodata: class id that means none.
        """
        self.store = store
        self.key = key
        self._layers = tuple(layers)
        self._nodata = nodata

    def missing(self, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
        """The chunks without a part that is whole and this run's; reads the parts through."""
        there = self.store.names()
        return tuple(
            chunk for chunk in chunks if _file_name(chunk) not in there or not self._is_whole(chunk)
        )

    @contextmanager
    def read(self, chunk: Chunk) -> Iterator[Part]:
        """The part of a chunk, read through, open while the block runs.

        Raises:
            OutputError: it is absent, damaged or another's.
        """
        with ExitStack() as files:
            part = self._found(chunk, files)
            if part is None:
                raise OutputError(
                    f"{self.store.place}: {_file_name(chunk)} is not whole any more; run it again."
                )
            yield part

    def absent(self, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
        """The chunks without a part, whole or not; lists the names, reads nothing."""
        names = self.store.names()
        return tuple(chunk for chunk in chunks if _file_name(chunk) not in names)

    def count(self) -> int:
        """Number of parts, whole or not."""
        return _count_parts(self.store)

    @contextmanager
    def write(self, chunk: Chunk) -> Iterator[PartWriter]:
        """Write the part of a chunk; it appears when the block ends well. Repeating it is safe.

        Raises:
            OutputError: it cannot be written.
            GridError: rows are missing at the end.
        """
        with self.store.written(_file_name(chunk)) as file:
            writer = PartWriter(file, self._name(chunk), self._layers, nodata=self._nodata)
            yield writer
            writer.finish()

    @contextmanager
    def committing(self, outputs: Iterable[Path]) -> Iterator[None]:
        """Remember, for the time in which outputs appear at their names, that they are this run's.

        Only a killed process leaves the note behind; see `interrupted_outputs`.

        Raises:
            OutputError: it cannot be written.
        """
        with self.store.written(_COMMITTING) as note:
            note.write(json.dumps([str(path.resolve()) for path in outputs]).encode())
        try:
            yield
        except BaseException:
            self.store.discard(_COMMITTING)
            raise

    def _is_whole(self, chunk: Chunk) -> bool:
        with ExitStack() as files:
            return self._found(chunk, files) is not None

    def _found(self, chunk: Chunk, files: ExitStack) -> Part | None:
        """The part of a chunk; None where it is absent, damaged or another's."""
        try:
            file = files.enter_context(self.store.opened(_file_name(chunk)))
        except OSError as error:
            logger.debug("part %d is done again: %s", chunk.index, error)
            return None
        return open_part(file, self._name(chunk), self._layers)

    def _name(self, chunk: Chunk) -> PartName:
        return PartName(key=self.key, chunk=chunk.index, window=chunk.core)


def check_parts(store: PartStore) -> None:
    """Say, before any work, that parts cannot go somewhere, or that something else lies there.

    Raises:
        OutputError: it is so.
    """
    store.check()
    if store.is_there() and _read_manifest(store) is None:
        raise OutputError(
            f"{store.place}: is no folder of geodinoseg's, and parts would go there; move it away, "
            f"or give the output another name."
        )


def interrupted_outputs(store: PartStore) -> frozenset[Path]:
    """Outputs that a killed run of these parts may have put in place, while others are missing.

    They are that run's own: to go on with it is no overwriting.
    """
    if _read_manifest(store) is None:
        return frozenset()
    try:
        with store.opened(_COMMITTING) as note:
            return frozenset(Path(path) for path in json.loads(note.read()))
    except (OSError, ValueError, TypeError, RecursionError):
        return frozenset()


def recorded_batch_size(store: PartStore) -> int | None:
    """The batch size of the run whose parts lie in a store; None where there is none."""
    manifest = _read_manifest(store)
    size = manifest["run"]["settings"].get("batch_size") if manifest else None
    return size if isinstance(size, int) and size > 0 else None


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
    """The parts of a run, those done before among them; whoever opens them holds the locks.

    When the block ends well they are removed. On an error they stay for the next run, unless no
    part was finished.

    Args:
        store: where they lie.
        run: what its bytes depend on.
        layers: what the map holds.
        nodata: class id that means none.
        chunks: of the plan.
        resume: go on with parts that are there; False starts over.

    Raises:
        OutputError: what lies there is not ours or another run's, or nothing can be written.
    """
    check_parts(store)
    parts = Parts(store, run.key, layers, nodata=nodata)
    manifest = _read_manifest(store)
    if manifest is None or not resume or not manifest["run"]["model"]:
        store.begin(MANIFEST, _manifest(run, chunks))
    else:
        _check_same(store, manifest, run)
        store.tidy()
    try:
        yield parts
    except BaseException:
        with contextlib.suppress(OutputError):  # the first error is the one to tell
            if not (run.is_resumable and parts.count()):
                store.remove(last=MANIFEST)
        raise
    try:
        store.remove(last=MANIFEST)
    except OutputError as error:  # the outputs are in place, and that is what counts
        logger.warning(
            "%s is not needed any more; remove it by hand (%s)", redact_path(store.place), error
        )


def join_parts(store: PartStore, run: Run, layers: Sequence[Layer], *, nodata: int) -> Parts:
    """The parts of a run that another process has opened, for a worker that writes some of them.

    Args:
        store: where they lie.
        run: what the worker would compute.
        layers: what the map holds.
        nodata: class id that means none.

    Raises:
        OutputError: they are not there, or belong to another run: the worker sees another scene,
            model or version than whoever opened them.
    """
    manifest = _read_manifest(store)
    if manifest is None:
        raise OutputError(
            f"{store.place}: is not seen here; parts must lie on storage that all workers share: "
            f"give the output there, or say with --parts where."
        )
    if manifest["run"] != run.to_json():
        difference = _difference(manifest["run"], run.to_json())
        raise OutputError(
            f"{store.place}: does not fit what is seen here: {difference}. All workers must see "
            f"the same scene and model, under the same names, on devices of one kind, with the "
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
    """The manifest of a store of ours; None where it is not."""
    try:
        with store.opened(MANIFEST) as file:
            text = file.read(_LARGEST_MANIFEST_BYTES)
        manifest = json.loads(text)
        ours = (manifest["format"], manifest["format_version"]) == (_FORMAT, _FORMAT_VERSION)
        named = all(isinstance(manifest["run"][name], dict) for name in Run.__slots__)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return manifest if ours and named else None


def _check_same(store: PartStore, manifest: Mapping[str, Any], run: Run) -> None:
    if manifest.get("key") == run.key and manifest["run"] == run.to_json():
        return
    raise OutputError(
        f"{store.place}: holds {_count_parts(store)} of {manifest.get('chunks')} parts of another "
        f"run: {_difference(manifest['run'], run.to_json())}. Repeat that run to go on with it, or "
        f"start over with --no-resume."
    )


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    for what in ("scene", "model"):
        if there[what] != here[what]:
            return f"its {what} is another, or was changed since"
    there, here = there["settings"], here["settings"]
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    told = [f"{n} was {str(there.get(n))[:40]}, is {str(here.get(n))[:40]} now" for n in names]
    return "; ".join(told) or "its manifest was changed"


def _file_name(chunk: Chunk) -> str:
    return f"{_PART}{chunk.index:05d}"


def _count_parts(store: PartStore) -> int:
    return sum(name.startswith(_PART) for name in store.names())
