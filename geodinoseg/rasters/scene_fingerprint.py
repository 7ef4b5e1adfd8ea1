"""Fingerprints of scenes: facts that change when the pixels do, without reading 50 GB.

They contain neither path nor address: a copy is the same scene, and no secret of a signed address
is stored in a manifest.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from geodinoseg.errors import SceneError, one_line
from geodinoseg.rasters.dataset import open_dataset
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.source import RasterSource
from geodinoseg.windows import Window

_READ_WHOLE_BYTES = 256 << 20
"""Files up to this size are hashed completely, which takes 0.3 s. A copy of a larger file with
another modification time is another scene: an edit between the samples must not go unnoticed."""
_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10
_SAMPLED_BLOCKS = 16
_HEAD_S = 10
_REMOTE = ("/vsicurl/", "http://", "https://")
_VALIDATORS = ("etag", "content-length", "last-modified")


def scene_fingerprint(scene: Scene, files: Sequence[str] | None = None) -> dict[str, Any]:
    """Facts as plain JSON about the header and the content of every file of the scene.

    A local file of up to 256 MiB is hashed completely. A larger one is represented by its size,
    modification time and 65 samples; a web address by ETag, length and date; any other address
    (object store, archive) by the pixels of 16 blocks.

    Args:
        scene: the scene.
        files: its files as found by `SceneWatch`; None to list them.
    """
    facts: dict[str, Any] = {"header": _digest(repr(_header(scene)).encode())}
    files = scene_files(scene) if files is None else files
    local = _local(files)
    if local:
        # Names distinguish the files of a mosaic; folders do not matter.
        facts["files"] = [[path.name, *_file_facts(path)] for path in local]
    if len(local) < max(len(files), 1):
        facts["remote"] = _http_validators(scene.source.path) or _digest_of_blocks(scene)
    return facts


class SceneWatch:
    """Detects changes to the local files of a scene while it is read."""

    def __init__(self, scene: Scene) -> None:
        """Record the state of the files; reads no pixels."""
        self._path = scene.source.path
        self.files = scene_files(scene)
        self._local = _local(self.files)
        self._recorded = self._state()

    def check(self) -> None:
        """Raise SceneError if size, modification time or inode of a file has changed."""
        if self._state() != self._recorded:
            raise SceneError(
                f"{self._path}: was changed while it was read, so the map would mix two versions; "
                f"let nothing write to it, and start over with --no-resume."
            )

    def _state(self) -> list[tuple[int, int, int]] | None:
        try:
            found = [path.stat() for path in self._local]
        except OSError:
            return None
        return [(status.st_size, status.st_mtime_ns, status.st_ino) for status in found]


def scene_files(scene: Scene) -> list[str]:
    """The files of a scene, those that a VRT in a VRT names included."""
    found: set[str] = set()
    waiting = [scene.source]
    while waiting:
        source = waiting.pop()
        with open_dataset(source) as dataset:
            new = set(dataset.files) - found
        found |= new
        # GDAL lists the sources of the outermost VRT only.
        inner = (path for path in new if path != source.path and path.lower().endswith(".vrt"))
        waiting += [RasterSource(path, scene.source.trusted) for path in inner]
    return sorted(found)


def _local(files: Iterable[str]) -> list[Path]:
    return [Path(path) for path in files if os.path.isfile(path)]  # a name may be too long


def _header(scene: Scene) -> tuple[Any, ...]:
    box = scene.geobox
    return (
        box.height,
        box.width,
        tuple(box.transform),
        str(box.crs),
        *([] if box.control is None else [repr(box.control)]),
        scene.bands,
        str(scene.dtype),
        scene.nodata,
        scene.scales,
        scene.offsets,
        scene.validity,
        scene.alpha_band,
        scene.block_shape,
    )


def _file_facts(path: Path) -> list[int | str]:
    try:
        status = path.stat()
        with path.open("rb") as file:
            if status.st_size <= _READ_WHOLE_BYTES:
                return [status.st_size, hashlib.file_digest(file, "sha256").hexdigest()]
            return [status.st_size, status.st_mtime_ns, _digest_of_samples(file, status.st_size)]
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({one_line(error)}); check the disk.") from error


def _digest_of_samples(file: IO[bytes], size: int) -> str:
    """Digest of evenly spaced samples, including the first and the last bytes."""
    digest = hashlib.sha256()
    for sample in range(_SAMPLES + 1):
        file.seek((size - _SAMPLE_BYTES) * sample // _SAMPLES)
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _http_validators(path: str) -> list[str]:
    """ETag, length and date of a web address; empty if the server sends none."""
    if not path.startswith(_REMOTE):
        return []
    address = path.removeprefix("/vsicurl/")
    if not address.startswith(("http://", "https://")):
        return []
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (http and https only)
    try:
        with urllib.request.urlopen(request, timeout=_HEAD_S) as response:  # noqa: S310
            headers = {name.lower(): value for name, value in response.headers.items()}
    except (OSError, ValueError):
        return []
    if "etag" not in headers and "last-modified" not in headers:
        return []
    return [f"{name} {headers[name]}" for name in _VALIDATORS if name in headers]


def _digest_of_blocks(scene: Scene) -> str:
    """Digest of the pixels of blocks along the diagonal."""
    rows, cols = (min(side, 512) for side in scene.block_shape)
    digest = hashlib.sha256()
    with scene.reader() as reader:
        for fraction in np.linspace(0, 1, _SAMPLED_BLOCKS):
            row_off = int(fraction * (scene.geobox.height - 1)) // rows * rows
            col_off = int(fraction * (scene.geobox.width - 1)) // cols * cols
            window = Window(col_off=col_off, row_off=row_off, width=cols, height=rows)
            pixels, valid = reader.read(
                window.clipped_to(height=scene.geobox.height, width=scene.geobox.width)
            )
            digest.update(pixels.tobytes() + valid.tobytes())
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
