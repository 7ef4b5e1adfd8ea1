"""Disturbs segmentations at random moments, goes on, and compares the bytes with an untouched run's.

    python tests/benchmarks/kill_loop.py --how kill         a run is killed (SIGKILL)
    python tests/benchmarks/kill_loop.py --how damage       the same, parts damaged in between
    python tests/benchmarks/kill_loop.py --how worker       one or both of two Dask workers are killed
    python tests/benchmarks/kill_loop.py --how scheduler    the Dask scheduler of a command is killed
    python tests/benchmarks/kill_loop.py --how full         the disk is full
    python tests/benchmarks/kill_loop.py --how limit        a file may not grow any more

Class raster, confidence and probabilities are written each time. Exits with 1 where a byte differs,
a run ends otherwise than it should, or files or processes are left behind.

No rights are needed. `full` mounts a small file system in memory in a namespace of its own, which
some machines and most containers do not allow; `limit` works everywhere. libtiff says on the
standard error stream what it could not write.
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
        case, found = fresh(case), []
        # A run that goes on is killed again; late moments come up, too.
        while _was_killed(case, rng.uniform(0, 1.05 * seconds) if kills < times else None):
            kills += 1
            found.append(len(case.parts))
            # The class raster comes last.
            if case.output.exists() and case.files() != whole:
                sys.exit(f"{case.folder}: neither absent nor whole")
            if damage and case.parts:
                damaged += spoil(case.parts, rng)
        case.check(whole)
        print(f"run {runs}: parts after each kill {found}", flush=True)
    more = f", {damaged} parts damaged in between" if damage else ""
    return f"{kills} kills in {runs} runs{more}"


def _was_killed(case: Case, after_s: float | None) -> bool:
    """Segment in a child, and kill it after some time; whether that was before its end."""
    # It may have been killed when its work was done, before it had tidied up.
    overwrite = case.output.exists()
    ending = forked(lambda: case.segment(overwrite=overwrite), kill_after_s=after_s)
    if ending.error:
        sys.exit(f"a run failed by itself: {ending.error}")
    return ending.killed


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
    parser.add_argument("--height", type=int, default=4700, help="of the scene, pixels")
    arguments = parser.parse_args()
    if arguments.how == "full":
        enter_namespace()
    # A forked child inherits no threads, and one pool of them would wait for ever.
    torch.set_num_threads(1)
    with watched_folder() as folder:
        scene = write_scene(folder / "scene.tif", height=arguments.height)
        case = Case(scene=scene, folder=folder / "none", model=KnownModel())
        done = LOOPS[arguments.how](case, arguments.times, random.Random(arguments.seed))
    print(f"{done}; the bytes are those of an untouched run, and nothing is left behind")


if __name__ == "__main__":
    main()
