"""What segmentation costs beside the model's forward pass: time, memory, block decodes.

    python tests/benchmarks/engine.py                 10,000 x 10,000 px, as the docs quote it
    python tests/benchmarks/engine.py --side 3000     a quick look

Prints ratios against a plain rasterio loop over windows with whole-scene accumulators, which is
what a script without this library does. A ratio holds better than seconds: both run in one call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window as RioWindow

from geodinoseg.legend import Legend
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

CLASSES, TILE, OVERLAP, BATCH = 8, 512, 128, 4
BLOCK = 512


class CheapModel:
    """Eight classes by the distance of the mean of three bands from eight grey values."""

    legend = Legend.of_names({i: f"class {i}" for i in range(CLASSES)})
    bands = (1, 2, 3)
    tile_multiple = 1
    tile_px = TILE
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._centres = torch.linspace(16, 240, CLASSES)[:, None, None]

    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        grey = pixels.to(torch.float32).mean(dim=1, keepdim=True)
        result = torch.softmax(-(((grey - self._centres) / 16) ** 2), dim=1)
        self.seconds += time.perf_counter() - began
        return result


def write_scene(path: Path, *, height: int, width: int) -> Path:
    """Smooth fields of several sizes with some noise, deflate, tiled: like an orthomosaic."""
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 3,
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(0.1, 0, 4e5, 0, -0.1, 5e6),
        "num_threads": "all_cpus",
        "photometric": "RGB",
    }
    field = np.kron(rng.random((37, 41)), np.ones((70, 70)))
    fine = np.kron(rng.random((130, 130)), np.ones((20, 20)))
    with rasterio.open(path, "w", **profile) as target:
        for row in range(0, height, BLOCK):
            rows = np.arange(row, min(row + BLOCK, height))
            cols = np.arange(width)
            ground = field[np.ix_(rows % field.shape[0], cols % field.shape[1])] * 170
            ground += fine[np.ix_(rows % fine.shape[0], cols % fine.shape[1])] * 60
            noise = rng.integers(0, 12, (3, len(rows), width))
            pixels = (ground[None] + noise).astype(np.uint8)
            target.write(pixels, window=RioWindow(0, row, width, len(rows)))
    return path


def plain_loop(scene: Path, output: Path) -> tuple[float, float]:
    """Read a window per tile, add to whole-scene sums, divide, argmax, write. Seconds: all, model."""
    model = CheapModel()
    began = time.perf_counter()
    with rasterio.open(scene, num_threads="all_cpus") as source:
        height, width = source.shape
        sums = np.zeros((CLASSES, height, width), dtype=np.float32)
        weights = np.zeros((height, width), dtype=np.float32)
        window_1d = np.hanning(TILE + 2)[1:-1].astype(np.float32)
        tile_weight = np.outer(window_1d, window_1d)
        step = TILE - OVERLAP
        places = [
            (min(row, max(height - TILE, 0)), min(col, max(width - TILE, 0)))
            for row in range(0, max(height - OVERLAP, 1), step)
            for col in range(0, max(width - OVERLAP, 1), step)
        ]
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            pixels = np.stack(
                [source.read(window=RioWindow(col, row, TILE, TILE)) for row, col in batch]
            )
            valid = torch.ones(len(batch), TILE, TILE, dtype=torch.bool)
            result = model.probabilities(torch.from_numpy(pixels), valid).numpy()
            for (row, col), probabilities in zip(batch, result, strict=True):
                span = (slice(row, row + TILE), slice(col, col + TILE))
                sums[:, *span] += probabilities * tile_weight
                weights[span] += tile_weight
        sums /= weights
        classes = sums.argmax(axis=0).astype(np.uint8)
        profile = source.profile | {"count": 1, "photometric": "MINISBLACK"}
    with rasterio.open(output, "w", **profile) as target:
        target.write(classes, 1)
    return time.perf_counter() - began, model.seconds


def ours(scene: Path, output: Path) -> tuple[float, float]:
    """The same by the library. Seconds: all, model."""
    model = CheapModel()
    settings = SegmentationSettings(tile_px=TILE, overlap_px=OVERLAP, batch_size=BATCH)
    began = time.perf_counter()
    segment_scene(scene, model, output, settings=settings, overwrite=True)
    return time.perf_counter() - began, model.seconds


def peak_mb() -> float:
    """Peak memory of this process. Not ru_maxrss, which a child inherits from its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def bytes_read() -> int:
    """Bytes that this process has asked the operating system for."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no rchar")


def in_a_process(mode: str, scene: Path, output: Path) -> dict[str, float]:
    """One run in a process of its own, with its peak memory."""
    command = [sys.executable, __file__, "--run", mode, str(scene), str(output)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def warm_up() -> None:
    """Segment a small scene: the first call imports the engine, which is not what is measured."""
    with tempfile.TemporaryDirectory() as name:
        ours(write_scene(Path(name, "scene.tif"), height=64, width=64), Path(name, "map.tif"))


def run(mode: str, scene: Path, output: Path) -> None:
    warm_up()
    if mode == "import":
        wall = model = 0.0
    else:
        wall, model = {"ours": ours, "plain": plain_loop}[mode](scene, output)
    print(json.dumps({"wall": wall, "model": model, "peak_mb": peak_mb(), "read": bytes_read()}))


def time_table(folder: Path, side: int, repeats: int) -> None:
    scene = write_scene(folder / "scene.tif", height=side, width=side)
    mpx = side * side / 1e6
    print(f"\nTime, {side:,} x {side:,} px, {CLASSES} classes, tiles of {TILE} with {OVERLAP}")
    print("| way | beside the model, s per Mpx | model, s per Mpx | peak memory, MB |")
    print("| --- | --- | --- | --- |")
    costs: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(repeats):
        for mode, cost in costs.items():
            result = in_a_process(mode, scene, folder / f"{mode}.tif")
            cost.append((result["wall"] - result["model"]) / mpx)
            print(
                f"| {mode} | {cost[-1]:.3f} | {result['model'] / mpx:.3f} | "
                f"{result['peak_mb']:,.0f} |",
                flush=True,
            )
    ratios = [a / b for a, b in zip(costs["ours"], costs["plain"], strict=True)]
    print(f"ratio ours / plain: {np.median(ratios):.2f}")


def memory_table(folder: Path, heights: tuple[int, int]) -> None:
    print("\nPeak memory, 4,000 px wide")
    print("| height | peak, MB | beside the libraries, MB |")
    print("| --- | --- | --- |")
    peaks = []
    base = in_a_process("import", folder / "none", folder / "none")["peak_mb"]
    for height in heights:
        scene = write_scene(folder / f"tall_{height}.tif", height=height, width=4000)
        result = in_a_process("ours", scene, folder / "tall_map.tif")
        peaks.append(result["peak_mb"])
        print(f"| {height:,} | {peaks[-1]:,.0f} | {peaks[-1] - base:,.0f} |", flush=True)
    print(f"ratio: {peaks[1] / peaks[0]:.3f}")


def decode_table(folder: Path, side: int) -> None:
    scene = folder / "scene.tif"
    size = scene.stat().st_size
    base = in_a_process("import", scene, scene)["read"]
    result = in_a_process("ours", scene, folder / "ours.tif")["read"] - base
    # The map is read, too: its parts to check and to use them, the rest for the COG and to check
    # it. The scene is read once more, for what it is known by.
    own = 5 * (folder / "ours.tif").stat().st_size + size
    print(
        f"\nBytes asked for: {result / 1e6:,.1f} MB; the scene is {size / 1e6:,.1f} MB, the rest "
        f"is {own / 1e6:,.1f} MB"
    )
    print(f"each source block decoded {(result - own) / size:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--heights", type=int, nargs=2, default=(8_000, 40_000))
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        mode, scene, output = arguments.run
        run(mode, Path(scene), Path(output))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        time_table(folder, arguments.side, arguments.repeats)
        decode_table(folder, arguments.side)
        memory_table(folder, tuple(arguments.heights))


if __name__ == "__main__":
    main()
