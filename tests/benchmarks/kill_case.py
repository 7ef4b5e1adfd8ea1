"""The segmentation that the kill loops disturb, and what must be true when it has ended."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from rasters import SmoothModel, write_raster

from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

SETTINGS = SegmentationSettings(tile_px=56, overlap_px=10)
FORK = multiprocessing.get_context("fork")
_NODATA = 255


class KnownModel(SmoothModel):
    """A model that a run can be gone on with, and that takes its time where it is asked to."""

    fingerprint = "smooth"

    def __init__(self, pause_s: float = 0) -> None:
        super().__init__(4, tile_px=56)
        self.pause_s = pause_s

    def answer(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        time.sleep(self.pause_s)
        return super().answer(pixels, valid)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scene, a model, and a folder that holds nothing but outputs."""

    scene: Path
    folder: Path
    model: Any
    settings: SegmentationSettings = SETTINGS
    layers: tuple[str, ...] = ("confidence", "probabilities")
    """Written beside the class raster."""

    @property
    def output(self) -> Path:
        """The class raster; the others lie beside it."""
        return self.folder / "map.tif"

    @property
    def parts(self) -> list[Path]:
        """Those that are there, whole or not."""
        return sorted(self.folder.glob("map.tif.parts/part-*"))

    def segment(self, **options: Any) -> None:
        """A run of the library."""
        segment_scene(
            self.scene,
            self.model,
            self.output,
            **dict.fromkeys(self.layers, True),
            settings=self.settings,
            device="cpu",
            **options,
        )

    def files(self) -> dict[str, bytes]:
        """Names and bytes of the files in the folder, but for the locks of runs that were killed."""
        found = [path for path in self.folder.iterdir() if path.is_file()]
        return {p.name: p.read_bytes() for p in found if not p.name.startswith(".geodinoseg-")}

    def check(self, whole: dict[str, bytes]) -> None:
        """Stop the loop where the outputs differ from an untouched run's, or more lies there."""
        found = self.files()
        differing = [name for name in whole if found.get(name) != whole[name]]
        left = sorted({path.name for path in self.folder.iterdir()} - set(whole))
        if differing or left:
            sys.exit(f"{self.folder}: other bytes: {differing}; left behind: {left}")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run in a child ended."""

    killed: bool
    error: str
    """Its kind and message; empty where the run ended well or was killed."""
    seconds: float


def forked(run: Callable[[], None], *, kill_after_s: float | None = None) -> Ending:
    """Run something in a child, and kill it amid its work: it has nothing to import any more."""
    began = time.monotonic()
    # No file: it may be that none can be written.
    answer, told = FORK.Pipe(duplex=False)

    def told_run() -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 (whoever asked judges it)
            told.send(f"{type(error).__name__}: {error}")

    with answer, told:
        child = FORK.Process(target=told_run)
        child.start()
        child.join(kill_after_s)
        child.kill()
        child.join()
        return Ending(
            killed=child.exitcode != 0,
            error=answer.recv() if answer.poll() else "",
            seconds=time.monotonic() - began,
        )


def untouched(case: Case) -> tuple[dict[str, bytes], float]:
    """The bytes of a run of one process that nobody disturbs, and how long it takes."""
    for _ in range(2):  # the first also fills caches
        case = fresh(case)
        ending = forked(case.segment)
        if ending.error:
            sys.exit(f"an untouched run failed: {ending.error}")
    return case.files(), ending.seconds


def fresh(case: Case) -> Case:
    """The same with a new, empty folder."""
    return replace(case, folder=Path(tempfile.mkdtemp(dir=case.scene.parent, prefix="run-")))


def write_scene(path: Path, *, height: int = 4700, width: int = 1100) -> Path:
    """Noise, which no compression makes small, with a corner without data."""
    pixels = np.random.default_rng(0).integers(0, 250, (3, height, width)).astype(np.uint8)
    pixels[:, : height // 5, : width // 3] = _NODATA
    return write_raster(path, pixels, nodata=_NODATA)


@contextmanager
def watched_folder() -> Iterator[Path]:
    """A folder for a loop; temporary files of all that is started in the block go there, too.

    Stops the loop where temporary files or processes are left at the end.
    """
    with tempfile.TemporaryDirectory(prefix="kill-loop-") as name:
        folder, temporary = Path(name), Path(name, "tmp")
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        yield folder
        tempfile.tempdir = None
        end = time.monotonic() + 20
        while left := [*temporary.iterdir(), *processes_left()]:
            if time.monotonic() > end:
                sys.exit(f"left behind: {left}")
            time.sleep(0.2)


def processes_left() -> list[psutil.Process]:
    """Processes that come from this one, but for Python's own resource tracker."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "resource_tracker" not in _command_of(process)]


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return "resource_tracker"  # gone by now
