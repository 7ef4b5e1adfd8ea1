"""How many files of the package a segmentation enters, and how often it moves between them.

    python tests/benchmarks/call_path.py            the table, for one tile and for a small scene
    python tests/benchmarks/call_path.py --moves    also the calls between each two files

A reader who follows `segment_scene` to the class raster in a debugger sees this path. Counted with
`sys.setprofile` in the calling thread: each call into a function of another file of the package is
a move, and so is each return. The map is a new one: an earlier run in another folder has done the
imports, and nothing lies at the output.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine

import geodinoseg

PACKAGE = str(Path(geodinoseg.__file__).parent)


class Constant:
    """A network that says the same everywhere."""

    legend = geodinoseg.Legend.of_names({0: "bare", 1: "green"})
    bands, tile_multiple, device, tile_px = (1, 2, 3), 1, torch.device("cpu"), 64

    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """(n, classes, T, T)."""
        green = torch.full_like(valid, 0.75, dtype=torch.float32)
        return torch.stack([1 - green, green], dim=1)


class CallPath:
    """Files entered and moves between them, while it is the profile function."""

    def __init__(self) -> None:
        self.entered: Counter[str] = Counter()
        self.moves = 0
        self.calls: Counter[tuple[str, str, str]] = Counter()
        """Of functions of another file: the file that is left, the file and the function."""
        self._now = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "return":
            frame = frame.f_back  # type: ignore[assignment]
            name = frame.f_code.co_filename if frame else ""
        elif event != "call":
            return
        if name.startswith(PACKAGE) and "<module>" not in frame.f_code.co_name:
            name = name.removeprefix(PACKAGE + "/")
            self.entered[name] += event == "call"
            moved = self._now not in {name, ""}
            self.moves += moved
            if moved and event == "call":
                self.calls[self._now, name, frame.f_code.co_qualname] += 1
            self._now = name


def call_path(action: Callable[[], object]) -> CallPath:
    """The path of one call."""
    path = CallPath()
    sys.setprofile(path)
    try:
        action()
    finally:
        sys.setprofile(None)
    return path


def write_scene(path: Path, side: int) -> Path:
    """A scene of three bands without nodata."""
    pixels = np.random.default_rng(1).integers(1, 255, (3, side, side), dtype=np.uint8)
    place = Affine(2.0, 0, 350_000, 0, -2.0, 3_056_000)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "crs": "EPSG:32645"}
    with rasterio.open(path, "w", width=side, height=side, transform=place, **profile) as dataset:
        dataset.write(pixels)
    return path


def print_path(path: CallPath, *, files: bool, moves: bool) -> None:
    """List what was asked for below the row of the table."""
    if files:
        for name, calls in path.entered.most_common():
            print(f"    {calls:5d}  {name}")
    if moves:
        for (left, entered, function), calls in path.calls.most_common():
            print(f"    {calls:5d}  {left} -> {entered}: {function}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="also list the files entered")
    parser.add_argument("--moves", action="store_true", help="also list the calls between files")
    arguments = parser.parse_args()
    print("scene      files  moves")
    for side in (64, 160):
        with tempfile.TemporaryDirectory() as folder:
            scene = write_scene(Path(folder, "scene.tif"), side)
            first, second = Path(folder, "first.tif"), Path(folder, "second.tif")
            geodinoseg.segment_scene(scene, Constant(), first)  # imports are not counted
            path = call_path(
                lambda scene=scene, second=second: geodinoseg.segment_scene(
                    scene, Constant(), second
                )
            )
        print(f"{side:4d} px    {len(path.entered):5d}  {path.moves:5d}")
        print_path(path, files=arguments.files, moves=arguments.moves)


if __name__ == "__main__":
    main()
