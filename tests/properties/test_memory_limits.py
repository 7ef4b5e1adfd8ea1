"""What a run may take of the memory: counted, kept, tried, and said where it is too little."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from rasters import IdentityModel, SmoothModel, read_raster, write_raster

from geodinoseg.cli.options import MemorySize
from geodinoseg.errors import GridError, SceneError
from geodinoseg.segmentation.inference import fitting_batch_size
from geodinoseg.segmentation.plan import make_plan
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 4, (1, 40, 30_000), dtype=np.uint8)
    return write_raster(
        tmp_path_factory.mktemp("wide") / "s.tif", pixels, tiled=True, blockxsize=256, blockysize=16
    )


@given(limit_mb=st.integers(120, 2000), classes=st.integers(2, 300), tile_px=st.integers(8, 40))
def test_the_plan_keeps_within_the_limit_or_says_how_much_it_needs(
    wide, limit_mb, classes, tile_px
):
    model = IdentityModel(classes)
    settings = SegmentationSettings(tile_px=tile_px, max_memory=limit_mb * 1_000_000)
    try:
        plan, _ = make_plan(wide, model, settings, confidence=True, probabilities=True)
    except GridError as error:
        needed = int(str(error).partition("--max-memory ")[2].partition("MB")[0])
        assert needed > limit_mb
        enough = SegmentationSettings(tile_px=tile_px, max_memory=needed * 1_000_000)
        make_plan(wide, model, enough, confidence=True, probabilities=True)
        return
    assert plan.memory_bytes <= settings.max_memory
    assert sum(chunk.core.width for chunk in plan.chunks) == 30_000


def test_more_memory_never_makes_narrower_panels(wide):
    model = IdentityModel(100)
    widths = [
        make_plan(wide, model, SegmentationSettings(tile_px=40, max_memory=mb * 1_000_000))[0]
        .chunks[0]
        .core.width
        for mb in range(150, 1500, 50)
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_a_scene_with_giant_blocks_says_what_to_give(tmp_path):
    pixels = np.zeros((3, 4096, 4096), np.uint8)
    scene = write_raster(
        tmp_path / "giant.tif",
        pixels,
        tiled=True,
        blockxsize=4096,
        blockysize=4096,
        interleave="pixel",
        compress="deflate",
    )
    model = IdentityModel()
    model.bands = (1, 2, 3)
    with pytest.raises(SceneError, match=r"blocks of 4096 x 4096 px need (\d+) MB") as caught:
        make_plan(scene, model, SegmentationSettings(max_memory=100_000_000))
    assert "gdal_translate -co TILED=YES" in str(caught.value)
    needed = int(str(caught.value).partition("--max-memory ")[2].partition("MB")[0])
    make_plan(scene, model, SegmentationSettings(max_memory=needed * 1_000_000))


def test_a_plan_can_be_sent_to_another_process(wide):
    plan, _ = make_plan(wide, IdentityModel(), SegmentationSettings(tile_px=16))
    found = pickle.loads(pickle.dumps(plan))
    assert found.fingerprint == plan.fingerprint
    assert found.chunks == plan.chunks


def test_memory_changes_how_much_is_read_at_once_and_no_byte(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 200, (1, 700, 600), dtype=np.uint8)
    scene = write_raster(tmp_path / "s.tif", pixels, blockysize=256, compress="deflate")
    found = []
    for limit in (145_000_000, 1 << 30):
        settings = SegmentationSettings(tile_px=64, max_memory=limit)
        segment_scene(
            scene, SmoothModel(3), tmp_path / "map.tif", settings=settings, overwrite=True
        )
        found.append((tmp_path / "map.tif").read_bytes())
    assert found[0] == found[1]


class FullAt(SmoothModel):
    def __init__(self, fits):
        super().__init__(3)
        self.fits = fits
        self.tried = []

    def answer(self, pixels, valid):
        self.tried.append(len(pixels))
        if len(pixels) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().answer(pixels, valid)


@pytest.mark.parametrize(("fits", "found"), [(100, 16), (16, 16), (15, 8), (3, 2), (1, 1), (0, 1)])
def test_the_batch_size_is_found_by_trial(wide, fits, found, caplog):
    model = FullAt(fits)
    plan, _ = make_plan(wide, model, SegmentationSettings(tile_px=16, batch_size=16))
    assert fitting_batch_size(plan, model) == found
    assert model.tried[0] == 16
    assert caplog.text == "", "a trial is no news"


def test_of_a_scene_with_few_tiles_a_trial_makes_no_smaller_batches(tmp_path):
    scene = write_raster(tmp_path / "s.tif", np.zeros((1, 20, 45), np.uint8))
    model = FullAt(100)
    plan, _ = make_plan(scene, model, SegmentationSettings(tile_px=32, batch_size=16))
    assert fitting_batch_size(plan, model) == 16
    assert model.tried == [len(plan.grid)]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5 gb", 1_500_000_000),
        ("700kB", 700_000),
        ("100B", 100),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert MemorySize().convert(text, None, None) == size


def test_a_memory_that_is_none_is_refused():
    with pytest.raises(GridError, match="are too few"):
        SegmentationSettings(max_memory=0)


def test_panels_of_a_small_memory_show_no_seam(wide, tmp_path):
    model = IdentityModel()
    fixed = make_plan(wide, model, SegmentationSettings(tile_px=32))[0].memory.panel_bytes(2000)
    settings = SegmentationSettings(tile_px=32, max_memory=fixed)
    segment_scene(wide, model, tmp_path / "map.tif", settings=settings)
    np.testing.assert_array_equal(read_raster(tmp_path / "map.tif"), read_raster(wide))
