"""What a scene's pixels are known by, without reading 50 GB: facts that change when they change.

Neither path nor address is among them: a copy is the same scene, and no secret of a signed address
gets into a manifest.
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
from geodinoseg.windows import Window

_READ_WHOLE_BYTES = 256 << 20
"""Files that are read whole, 0.3 s at the speed of SHA-256. Of larger ones a copy with another time
of change counts as another scene: an edit between the samples must not pass unseen."""
_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10
_SAMPLED_BLOCKS = 16
_HEAD_S = 10
_REMOTE = ("/vsicurl/", "http://", "https://")
_TELLING = ("etag", "content-length", "last-modified")


def scene_fingerprint(scene: Scene, files: Sequence[str] | None = None) -> dict[str, Any]:
    """Facts as plain JSON: the header, and the content of every file that belongs to the scene.

    A local file of up to 256 MiB is digested whole. Of a larger one the size, the time of change
    and 65 samples count; of a web address ETag, length and date; of any other address (an object
    store, an archive) the pixels of 16 blocks.

    Args:
        scene: to look at.
        files: of the scene, as `SceneWatch` found them; looked up where not given.
    """
    facts: dict[str, Any] = {"header": _digest(repr(_header(scene)).encode())}
    files = _files(scene) if files is None else files
    local = _local(files)
    if local:
        # Names tell the files of a mosaic apart; folders do not matter.
        facts["files"] = [[path.name, *_file_facts(path)] for path in local]
    if len(local) < max(len(files), 1):
        facts["remote"] = _told_by_server(scene.path) or _digest_of_blocks(scene)
    return facts


class SceneWatch:
    """Notices that local files of a scene change while it is read."""

    def __init__(self, scene: Scene) -> None:
        """Remember what the files are known by; reads no pixels."""
        self._path = scene.path
        self.files = _files(scene)
        self._local = _local(self.files)
        self._known = self._look()

    def check(self) -> None:
        """Compare size, time of change and place on the disk of each file."""
        if self._look() != self._known:
            raise SceneError(
                f"{self._path}: was changed while it was read, and a map of both is none; let "
                f"nothing write to it, and start over with --no-resume."
            )

    def _look(self) -> list[tuple[int, int, int]] | None:
        try:
            found = [path.stat() for path in self._local]
        except OSError:
            return None
        return [(status.st_size, status.st_mtime_ns, status.st_ino) for status in found]


def _files(scene: Scene) -> list[str]:
    with open_dataset(scene.source) as dataset:
        return sorted(dataset.files)


def _local(files: Iterable[str]) -> list[Path]:
    return [Path(path) for path in files if os.path.isfile(path)]  # a name may be too long


def _header(scene: Scene) -> tuple[Any, ...]:
    box = scene.geobox
    return (
        box.height,
        box.width,
        tuple(box.transform),
        str(box.crs),
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
        raise SceneError(
            f"{path}: cannot be read ({one_line(error)}); look at the disk."
        ) from error


def _digest_of_samples(file: IO[bytes], size: int) -> str:
    """Evenly spaced, the file's first and last bytes among them."""
    digest = hashlib.sha256()
    for sample in range(_SAMPLES + 1):
        file.seek((size - _SAMPLE_BYTES) * sample // _SAMPLES)
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _told_by_server(path: str) -> list[str]:
    """ETag, length and date of a web address; empty where it is none or the server is silent."""
    if not path.startswith(_REMOTE):
        return []
    address = path.removeprefix("/vsicurl/")
    if not address.startswith(("http://", "https://")):
        return []
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (http and https only)
    try:
        with urllib.request.urlopen(request, timeout=_HEAD_S) as answer:  # noqa: S310
            headers = {name.lower(): value for name, value in answer.headers.items()}
    except (OSError, ValueError):
        return []
    if "etag" not in headers and "last-modified" not in headers:
        return []
    return [f"{name} {headers[name]}" for name in _TELLING if name in headers]


def _digest_of_blocks(scene: Scene) -> str:
    """Pixels of blocks along the diagonal, from corner to corner."""
    rows, cols = (min(side, 512) for side in scene.block_shape)
    digest = hashlib.sha256()
    with scene.reader() as reader:
        for share in np.linspace(0, 1, _SAMPLED_BLOCKS):
            row_off = int(share * (scene.geobox.height - 1)) // rows * rows
            col_off = int(share * (scene.geobox.width - 1)) // cols * cols
            window = Window(col_off=col_off, row_off=row_off, width=cols, height=rows)
            pixels, valid = reader.read(
                window.clipped_to(height=scene.geobox.height, width=scene.geobox.width)
            )
            digest.update(pixels.tobytes() + valid.tobytes())
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
