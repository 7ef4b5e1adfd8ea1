"""Every file operation of a run fails in turn: the output is the old file or the whole new one."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from faults import Died, faults
from rasters import SmoothModel, write_raster

from geodinoseg.errors import GeodinosegError
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings


class KnownModel(SmoothModel):
    fingerprint = "a"


def segment(folder, tile_px=48):
    return segment_scene(
        folder / "scene.tif",
        KnownModel(3),
        folder / "map.tif",
        confidence=True,
        overwrite=True,
        settings=SegmentationSettings(tile_px=tile_px),
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def place(tmp_path):
    """A scene, the map of another run at the output, and what the folder holds at last."""
    pixels = np.random.default_rng(1).integers(0, 190, (1, 83, 131)).astype(np.uint8)
    write_raster(tmp_path / "scene.tif", pixels)
    segment(tmp_path)
    new = contents(tmp_path)
    segment(tmp_path, tile_px=32)
    old = contents(tmp_path)
    assert old["map.tif"] != new["map.tif"]
    return tmp_path, old, new


def fail_everywhere(place, how, step):
    folder, old, new = place
    at = 1
    while True:
        with faults(at, how) as found, contextlib.suppress(GeodinosegError, Died):
            segment(folder)
        if not found.hit:
            break
        now = contents(folder)
        for name in ("map.tif", "map_confidence.tif"):
            assert now[name] in {old[name], new[name]}, (at, name)
        segment(folder)
        assert contents(folder) == new, at
        assert not [path for path in folder.iterdir() if path.is_dir()], at
        for name, content in old.items():
            (folder / name).write_bytes(content)
        at += step
    assert at > 60


@pytest.mark.parametrize("how", ["full", "broken", "death"])
@pytest.mark.slow
def test_wherever_the_disk_fails_the_output_is_the_old_or_the_whole_new_one(place, how):
    fail_everywhere(place, how, step=1)


@pytest.mark.parametrize(("how", "step"), [("full", 13), ("death", 11)])
def test_here_and_there_the_disk_fails_and_a_run_again_gives_the_same_bytes(place, how, step):
    fail_everywhere(place, how, step)
