"""Loops in which the disk fails: it is full, or a file may not grow any more."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kill_case import Case, Ending, forked, fresh, untouched

from geodinoseg.segmentation.settings import SegmentationSettings

_AMPLE_BYTES = 1 << 30
_INSIDE = "KILL_LOOP_NAMESPACE"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Runs that write the same files."""

    case: Case
    whole: dict[str, bytes]
    """What an untouched run writes."""
    old: dict[str, bytes]
    """What a run of other settings has left at the same names."""
    bytes_needed: int


def fill_disk(case: Case, times: int, rng: random.Random) -> str:
    """Outputs go to a file system in memory (tmpfs) that has room for a random number of bytes."""

    def run(case: Case, room: int | None) -> Ending:
        used = shutil.disk_usage(case.folder).used
        _resize(case.folder, _AMPLE_BYTES if room is None else used + room)
        return forked(lambda: case.segment(overwrite=True))

    variants = [variant_of(c, _peak_bytes(c)) for c in _with_and_without_probabilities(case)]
    return _failing(variants, times, rng, rng.random, run, _mounted)


def limit_files(case: Case, times: int, rng: random.Random) -> str:
    """No file may grow beyond a random number of bytes (RLIMIT_FSIZE)."""

    def run(case: Case, room: int | None) -> Ending:
        def limited() -> None:
            if room is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            case.segment(overwrite=True)

        return forked(limited)

    variants = [variant_of(c, None) for c in _with_and_without_probabilities(case)]
    # Parts and text files are small, rasters large: all sizes shall come up.
    return _failing(variants, times, rng, lambda: 10 ** rng.uniform(-5, 0), run, _anywhere)


def enter_namespace() -> None:
    """Go on in namespaces of this script's own, where it may mount; needs no rights beside that."""
    if _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-Urm", sys.executable, *sys.argv])


def _with_and_without_probabilities(case: Case) -> list[Case]:
    return [case, replace(case, layers=("confidence",))]


def variant_of(case: Case, bytes_needed: int | None) -> Variant:
    """Runs the case twice; where not given, the largest file says what is needed."""
    whole, _ = untouched(case)
    old, _ = untouched(replace(case, settings=SegmentationSettings(tile_px=48, overlap_px=5)))
    largest = max(map(len, whole.values()))
    return Variant(case=case, whole=whole, old=old, bytes_needed=bytes_needed or largest)


def _failing(
    variants: Sequence[Variant],
    times: int,
    rng: random.Random,
    draw: Callable[[], float],
    run: Callable[[Case, int | None], Ending],
    place: Callable[[Path], AbstractContextManager[None]],
) -> str:
    """Runs with a random share of what they need; those that fail are gone on with."""
    failures, runs, faults = 0, 0, Counter[str]()
    while failures < times:
        runs += 1
        variant, found = rng.choice(variants), []
        case, before = fresh(variant.case), rng.choice([variant.old, {}])
        with place(case.folder):
            for name, data in before.items():
                (case.folder / name).write_bytes(data)
            room: int | None = int(draw() * variant.bytes_needed)
            while (ending := run(case, room)).error:
                failures += 1
                faults[_checked(case, ending.error, before)] += 1
                found.append(len(case.parts))
                # Some are gone on with where there is too little room again.
                again = failures < times and rng.random() < 0.5
                room = int(draw() * variant.bytes_needed) if again else None
            case.check(variant.whole)
        there = "over old outputs" if before else "with nothing there"
        print(f"run {runs}, {there}: parts after each failure {found}", flush=True)
    for fault, count in sorted(faults.items()):
        print(f"{count:4d}  {fault}")
    return f"{failures} failures in {runs} runs"


def _checked(case: Case, error: str, before: dict[str, bytes]) -> str:
    """What failed where; stops the loop where more than that is not as it was before."""
    found = re.fullmatch(rf"OutputError: {re.escape(str(case.folder))}/(\S+): (.*)", error)
    left = {path.name for path in case.folder.iterdir()} - set(before) - {"map.tif.parts"}
    parts = case.folder / "map.tif.parts"
    left |= {path.name for path in parts.glob(".*")}
    if not found or left or case.files() != before:
        sys.exit(f"{error}\nleft behind: {left}")
    name = re.sub(r"part-\d+", "part-N", found[1])
    return f"{name}: {re.sub(r'[0-9]+', 'N', found[2].replace(str(case.folder), 'FOLDER'))}"


def _peak_bytes(case: Case) -> int:
    """Of all that a run has on the disk at a time."""
    case = fresh(case)
    told = case.scene.with_name("peak")

    def watched() -> None:
        most, over = 0, threading.Event()

        def look() -> None:
            nonlocal most
            while not over.wait(0.002):
                most = max(most, shutil.disk_usage(case.folder).used)

        thread = threading.Thread(target=look)
        thread.start()
        case.segment()
        over.set()
        thread.join()
        told.write_text(str(most))

    with _mounted(case.folder):
        forked(watched)
    return int(told.read_text())


@contextmanager
def _anywhere(folder: Path) -> Iterator[None]:
    yield


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    options = ["-t", "tmpfs", "-o", f"size={_AMPLE_BYTES}", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
