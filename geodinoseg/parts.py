"""The parts folder of a run: which chunks are done, and that they are this run's and whole.

<output>.parts/
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodinoseg.class_rasters.class_rows import Layer
from geodinoseg.class_rasters.part_file import Part, PartName, PartWriter, open_part
from geodinoseg.errors import OutputError
from geodinoseg.grid import Chunk
from geodinoseg.lock import OURS
from geodinoseg.outputs import (
    folder_written_beside,
    remove_folder,
    remove_left_behind,
    written_beside,
)

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_APPEARING = "appearing.json"
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
    """The parts of one run. A plain value but for the folder: it can be sent to another process."""

    def __init__(self, folder: Path, key: str, layers: Sequence[Layer], *, nodata: int) -> None:
        """Look at a parts folder; opens nothing. `opened_parts` makes one.

        Args:
            folder: `<output>.parts`.
            key: of the run.
            layers: what the map holds.
            nodata: class id that means none.
        """
        self.folder = folder
        self.key = key
        self._layers = tuple(layers)
        self._nodata = nodata

    def missing(self, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
        """The chunks without a part that is whole; reads the parts through."""
        return tuple(chunk for chunk in chunks if self.find(chunk) is None)

    def find(self, chunk: Chunk) -> Part | None:
        """The part of a chunk; None where it is absent, damaged or another's."""
        return open_part(self._path(chunk), self._name(chunk), self._layers)

    def read(self, chunk: Chunk) -> Part:
        """The part of a chunk, read through.

        Raises:
            OutputError: it is absent, damaged or another's.
        """
        part = self.find(chunk)
        if part is None:
            raise OutputError(f"{self._path(chunk)}: is not whole any more; run it again.")
        return part

    def absent(self, chunks: Iterable[Chunk]) -> tuple[Chunk, ...]:
        """The chunks without a part, whole or not; lists the folder, reads nothing."""
        names = {path.name for path in self.folder.iterdir()}
        return tuple(chunk for chunk in chunks if self._path(chunk).name not in names)

    def count(self) -> int:
        """Number of parts in the folder, whole or not."""
        return sum(1 for _ in self.folder.glob("part-*"))

    @contextmanager
    def write(self, chunk: Chunk) -> Iterator[PartWriter]:
        """Write the part of a chunk; it appears when the block ends well. Repeating it is safe.

        Raises:
            OutputError: it cannot be written.
            GridError: rows are missing at the end.
        """
        with written_beside(self._path(chunk)) as beside, beside.open("wb") as file:
            writer = PartWriter(file, self._name(chunk), self._layers, nodata=self._nodata)
            yield writer
            writer.finish()

    @contextmanager
    def appearing(self, outputs: Iterable[Path]) -> Iterator[None]:
        """Remember, for the time in which outputs appear at their names, that they are this run's.

        Only a killed process leaves the note behind; see `outputs_in_doubt`.

        Raises:
            OutputError: it cannot be written.
        """
        note = self.folder / _APPEARING
        with written_beside(note) as beside:
            beside.write_text(json.dumps([str(path.resolve()) for path in outputs]), "utf-8")
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                note.unlink()
            raise

    def _path(self, chunk: Chunk) -> Path:
        return self.folder / f"part-{chunk.index:05d}"

    def _name(self, chunk: Chunk) -> PartName:
        return PartName(key=self.key, chunk=chunk.index, window=chunk.core)


def parts_folder(output: Path) -> Path:
    """Where the parts of an output lie."""
    return output.with_name(f"{output.name}.parts")


def check_parts_folder(output: Path) -> None:
    """Say, before any work, that something else lies where the parts would go.

    Raises:
        OutputError: a folder or file that is not ours.
    """
    folder = parts_folder(output)
    if folder.is_symlink() or (folder.exists() and _read_manifest(folder) is None):
        raise OutputError(
            f"{folder}: is no folder of geodinoseg's, and parts of {output.name} would go there; "
            f"move it away, or give the output another name."
        )


def outputs_in_doubt(output: Path) -> frozenset[Path]:
    """Outputs that a killed run of these parts may have put in place, while others are missing.

    They are that run's own: to go on with it is no overwriting.
    """
    folder = parts_folder(output)
    if _read_manifest(folder) is None:
        return frozenset()
    try:
        paths = json.loads((folder / _APPEARING).read_text("utf-8"))
        return frozenset(Path(path) for path in paths)
    except (OSError, ValueError, TypeError, RecursionError):
        return frozenset()


def recorded_batch_size(output: Path) -> int | None:
    """The batch size of the run whose parts lie beside an output; None where there is none."""
    manifest = _read_manifest(parts_folder(output))
    size = manifest["run"]["settings"].get("batch_size") if manifest else None
    return size if isinstance(size, int) and size > 0 else None


@contextmanager
def opened_parts(
    output: Path,
    run: Run,
    layers: Sequence[Layer],
    *,
    nodata: int,
    chunks: Sequence[Chunk],
    resume: bool,
) -> Iterator[Parts]:
    """The parts of a run, those done before among them; whoever opens them holds the output's lock.

    When the block ends well the folder is removed. On an error it stays for the next run, unless no
    part was finished.

    Args:
        output: the class raster.
        run: what its bytes depend on.
        layers: what the map holds.
        nodata: class id that means none.
        chunks: of the plan.
        resume: go on with parts that are there; False starts over.

    Raises:
        OutputError: the folder is not ours, belongs to another run, or cannot be written.
    """
    check_parts_folder(output)
    folder = parts_folder(output)
    parts = Parts(folder, run.key, layers, nodata=nodata)
    manifest = _read_manifest(folder)
    if manifest is None or not resume or not manifest["run"]["model"]:
        _begin(folder, run, chunks)
    else:
        _check_same(folder, manifest, run)
        remove_left_behind(folder, OURS)
    try:
        yield parts
    except BaseException:
        if not (run.is_resumable and parts.count()):
            with contextlib.suppress(OutputError):  # the first error is the one to tell
                remove_folder(folder)
        raise
    try:
        remove_folder(folder)
    except OutputError as error:  # the outputs are in place, and that is what counts
        logger.warning("%s is not needed any more; remove it by hand (%s)", folder, error)


def joined_parts(folder: Path, run: Run, layers: Sequence[Layer], *, nodata: int) -> Parts:
    """The parts of a run that another process has opened, for a worker that writes some of them.

    Args:
        folder: the parts folder.
        run: what the worker would compute.
        layers: what the map holds.
        nodata: class id that means none.

    Raises:
        OutputError: the folder is not there, or belongs to another run: the worker sees another
            scene, model or version than whoever opened it.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        raise OutputError(
            f"{folder}: is not seen here; the output must lie on storage that all workers share."
        )
    if manifest["run"] != run.to_json():
        difference = _difference(manifest["run"], run.to_json())
        raise OutputError(
            f"{folder}: does not fit what is seen here: {difference}. All workers must see the "
            f"same scene and model, under the same names, on devices of one kind, with the same "
            f"geodinoseg."
        )
    return Parts(folder, run.key, layers, nodata=nodata)


def _begin(folder: Path, run: Run, chunks: Sequence[Chunk]) -> None:
    manifest = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "key": run.key,
        "chunks": len(chunks),
        "run": run.to_json(),
    }
    with folder_written_beside(folder) as fresh:
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder of ours; None where it is not."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST_BYTES:
            return None
        manifest = json.loads(path.read_text("utf-8"))
        ours = (manifest["format"], manifest["format_version"]) == (_FORMAT, _FORMAT_VERSION)
        named = all(isinstance(manifest["run"][name], dict) for name in Run.__slots__)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return manifest if ours and named else None


def _check_same(folder: Path, manifest: Mapping[str, Any], run: Run) -> None:
    if manifest.get("key") == run.key and manifest["run"] == run.to_json():
        return
    found = sum(1 for _ in folder.glob("part-*"))
    raise OutputError(
        f"{folder}: holds {found} of {manifest.get('chunks')} parts of another run: "
        f"{_difference(manifest['run'], run.to_json())}. Repeat that run to go on with it, or "
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
