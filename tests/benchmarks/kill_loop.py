"""Disturbs segmentations at random moments, goes on, and compares the bytes with an untouched run's.

    python tests/benchmarks/kill_loop.py --how kill         a run is killed (SIGKILL)
    python tests/benchmarks/kill_loop.py --how damage       the same, parts damaged in between
    python tests/benchmarks/kill_loop.py --how worker       one of two Dask workers is killed
    python tests/benchmarks/kill_loop.py --how scheduler    the Dask scheduler of a command is killed
    python tests/benchmarks/kill_loop.py --how full         the disk is full
    python tests/benchmarks/kill_loop.py --how limit        a file may not grow any more

Class raster, confidence and probabilities are written each time. Exits with 1 where a byte differs,
a run ends otherwise than it should, or files or processes are left behind.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch
from kill_case import Case, KnownModel, forked, fresh, untouched, watched_folder, write_scene
from kill_cluster import kill_schedulers, kill_workers
from kill_disk import enter_namespace, fill_disk, limit_files


def kill(case: Case, times: int, rng: random.Random) -> str:
    """Kill runs of one process."""
    return _killed(case, times, rng, damage=False)


def damage(case: Case, times: int, rng: random.Random) -> str:
    """Kill runs of one process, and damage the parts that they left."""
    return _killed(case, times, rng, damage=True)


def _killed(case: Case, times: int, rng: random.Random, *, damage: bool) -> str:
    whole, seconds = untouched(case)
    kills = runs = damaged = 0
    while kills < times:
        runs += 1
        case = fresh(case)
        found, ended = [], False
        while not ended:
            # A run that goes on is killed again; late moments come up, too.
            moment = rng.uniform(0, 1.05 * seconds) if kills < times else None
            ending = forked(case.segment, kill_after_s=moment)
            if ending.error:
                sys.exit(f"a run failed by itself: {ending.error}")
            ended = not ending.killed
            if ending.killed:
                kills += 1
                found.append(len(case.parts))
                if case.outputs[0].exists():
                    # The class raster comes last. What is left to tidy up goes with the next run.
                    found.append("whole")
                    if case.files() != whole:
                        sys.exit(f"{case.folder}: neither absent nor whole")
                    forked(lambda case=case: case.segment(overwrite=True))
                    break
                if damage and case.parts:
                    damaged += spoil(case.parts, rng)
        case.check(whole)
        print(f"run {runs}: parts after each kill {found}", flush=True)
    more = f", {damaged} parts damaged in between" if damage else ""
    return f"{kills} kills in {runs} runs{more}"


def spoil(parts: list[Path], rng: random.Random) -> int:
    """Flip a bit, cut off, empty, or swap two; says how many parts it was."""
    path, other = rng.choice(parts), rng.choice(parts)
    data = bytearray(path.read_bytes())
    how = rng.choice(["flip", "cut", "empty", "swap"])
    if how == "swap" and path != other:
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return 2
    if how == "flip" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        data = data[: rng.randrange(len(data)) if data and how == "cut" else 0]
    path.write_bytes(data)
    return 1


LOOPS = {
    "kill": kill,
    "damage": damage,
    "worker": kill_workers,
    "scheduler": kill_schedulers,
    "full": fill_disk,
    "limit": limit_files,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--how", choices=LOOPS, default="kill")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.how == "full":
        enter_namespace()
    # A forked child inherits no threads, and one pool of them would wait for ever.
    torch.set_num_threads(1)
    with watched_folder() as folder:
        scene = write_scene(folder / "scene.tif")
        case = Case(scene=scene, folder=folder / "none", model=KnownModel())
        done = LOOPS[arguments.how](case, arguments.times, random.Random(arguments.seed))
    print(f"{done}; the bytes are those of an untouched run, and nothing is left behind")


if __name__ == "__main__":
    main()
