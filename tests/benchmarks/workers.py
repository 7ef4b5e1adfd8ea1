"""What a second worker gives: two on two cores against one that is pinned to one core.

    python tests/benchmarks/workers.py                    about five minutes
    python tests/benchmarks/workers.py --height 1024      a quick look

Prints the ratio of the seconds, and whether the bytes are the same. Each way runs in a process of
its own, in turn; workers are started before the clock is. All compute with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TILE_PX = 140


def run(count: int, scene: Path, model: Path, output: Path) -> None:
    """Segment with workers on as many cores; prints seconds."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    from geodinoseg.cluster.local import local_workers
    from geodinoseg.segmentation.segment import segment_scene
    from geodinoseg.segmentation.settings import SegmentationSettings

    settings = SegmentationSettings(tile_px=TILE_PX, batch_size=4)
    started = time.perf_counter()
    with local_workers(count, device="cpu") as workers:
        began = time.perf_counter()
        segment_scene(scene, model, output, settings=settings, workers=workers)
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "with_start": time.perf_counter() - started}))


def in_a_process(count: int, scene: Path, model: Path, output: Path) -> dict[str, float]:
    arguments = [str(count), str(scene), str(model), str(output)]
    command = [sys.executable, __file__, "--run", *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=4096)
    parser.add_argument("--width", type=int, default=2700)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        count, *paths = arguments.run
        run(int(count), *map(Path, paths))
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed")
    from engine import write_scene
    from parts import small_dinov2

    from geodinoseg.model.folder import save_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = write_scene(folder / "scene.tif", height=arguments.height, width=arguments.width)
        model = save_model(small_dinov2(folder), folder / "small.model")
        print(f"DINOv2 small, {arguments.height:,} x {arguments.width:,} px, tiles of {TILE_PX} px")
        print("| workers | cores | seconds | with their start |")
        print("| --- | --- | --- | --- |")
        found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for repeat in range(arguments.repeats):
            for count, results in found.items():
                output = folder / f"{count}_{repeat}" / "map.tif"
                output.parent.mkdir()
                results.append(in_a_process(count, scene, model, output))
                last = results[-1]
                row = f"{last['seconds']:.1f} | {last['with_start']:.1f}"
                print(f"| {count} | {count} | {row} |", flush=True)
        pairs = zip(found[1], found[2], strict=True)
        ratio = np.median([one["seconds"] / two["seconds"] for one, two in pairs])
        print(f"one worker / two workers: {ratio:.2f}")
        maps = {path.read_bytes() for path in folder.glob("*/map.tif")}
        print(f"the same bytes: {len(maps) == 1}")


if __name__ == "__main__":
    main()
