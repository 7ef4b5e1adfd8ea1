"""Kills a segmentation at random moments, goes on, and compares the bytes with an untouched run's.

    python tests/benchmarks/kill_loop.py --kills 30
    python tests/benchmarks/kill_loop.py --kills 30 --damage      a bit of a part flipped in between

Each run is a process of its own that is forked, so that it is killed amid its work and not amid its
imports. Exits with 1 where bytes differ or something is left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from rasters import SmoothModel, write_raster

import geodinoseg.plan
from geodinoseg.plan import SegmentSettings
from geodinoseg.segmentation import segment_scene

SETTINGS = SegmentSettings(tile_px=128, overlap_px=37)


class KnownModel(SmoothModel):
    fingerprint = "smooth"


def segment(folder: Path) -> None:
    segment_scene(
        folder / "scene.tif", KnownModel(4), folder / "map.tif", confidence=True, settings=SETTINGS
    )


def forked(folder: Path, *, kill_after_s: float | None = None) -> tuple[bool, float]:
    """Segment in a child. Whether it ended by itself, and after how many seconds."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            segment(folder)
            code = 0
        finally:
            os._exit(code)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run failed by itself")
    return os.WIFEXITED(status), time.monotonic() - began


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def flip_a_bit(folder: Path, rng: random.Random) -> None:
    parts = sorted(folder.glob("map.tif.parts/part-*"))
    if parts:
        path = rng.choice(parts)
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=1500)
    parser.add_argument("--damage", action="store_true")
    arguments = parser.parse_args()
    # A forked child inherits no threads, and one pool of them would wait for ever.
    torch.set_num_threads(1)
    geodinoseg.plan._CHUNK_TILES = 64
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 250, (1, arguments.side, 1100))
        write_raster(folder / "scene.tif", pixels.astype(np.uint8))
        forked(folder)  # the first of all also fills caches
        for path in folder.glob("map*"):
            path.unlink()
        _, seconds = forked(folder)
        whole = outputs(folder)
        kills = 0
        while kills < arguments.kills:
            for path in folder.glob("map*"):
                path.unlink()
            ended, found = False, []
            while not ended:
                # Late kills come up too, and a run that goes on is killed again.
                moment = rng.uniform(0, 1.05 * seconds) if kills < arguments.kills else None
                ended, _ = forked(folder, kill_after_s=moment)
                if not ended:
                    kills += 1
                    found.append(len(list(folder.glob("map.tif.parts/part-*"))))
                    if (folder / "map.tif").exists():
                        break  # it was killed after its work was done
                    if arguments.damage:
                        flip_a_bit(folder, rng)
            left = [p.name for p in folder.iterdir() if p.is_dir() or p.name.startswith(".")]
            same = outputs(folder) == whole
            print(f"parts found after each kill: {found}; the same bytes: {same}", flush=True)
            if ended and (left or not same):
                raise SystemExit(f"left behind: {left}")
            if not ended and (folder / "map.tif").read_bytes() != whole["map.tif"]:
                raise SystemExit("the output is neither absent nor whole")
    print(f"{kills} kills, each gone on with, the bytes those of an untouched run")


if __name__ == "__main__":
    main()
