"""The engine end to end, with models whose answer is known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rasters import (
    NORTH_UP,
    ROTATED,
    SOUTH_UP,
    ConstantModel,
    FixedModel,
    IdentityModel,
    SmoothModel,
    read_raster,
    write_raster,
)

from geodinoseg.errors import GridError, ModelError, OutputError, OutputExistsError, SceneError
from geodinoseg.legend import Legend
from geodinoseg.model.devices import FittingBatches
from geodinoseg.model.folder import load_model
from geodinoseg.progress import no_progress
from geodinoseg.segmentation.inference import class_rows
from geodinoseg.segmentation.missing_pixels import CollarWatch
from geodinoseg.segmentation.plan import make_plan
from geodinoseg.segmentation.runner import TileProgress
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.stitcher import most_probable


def random_classes(height: int, width: int, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(height * 991 + width).integers(
        0, classes, (1, height, width), dtype=np.uint8
    )


@given(
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    tile_px=st.integers(8, 50),
    share=st.floats(0, 0.7),
    batch_size=st.integers(1, 5),
)
@settings(max_examples=25)
def test_an_identity_model_gives_its_input_back(
    height, width, tile_px, share, batch_size, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("identity")
    pixels = random_classes(height, width)
    pixels[0, : height // 3, : width // 2] = 200
    scene = write_raster(folder / "s.tif", pixels, nodata=200)
    choices = SegmentationSettings(
        tile_px=tile_px, overlap_px=int(share * tile_px), batch_size=batch_size
    )
    segment_scene(scene, IdentityModel(), folder / "map.tif", settings=choices)
    expected = np.where(pixels[0] == 200, 255, pixels[0])
    assert_array_equal(read_raster(folder / "map.tif"), expected)


@given(height=st.integers(1, 300), width=st.integers(1, 300), overlap=st.integers(0, 24))
@settings(max_examples=25)
def test_a_model_that_says_the_same_everywhere_gives_one_value_everywhere(
    height, width, overlap, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("constant")
    scene = write_raster(folder / "s.tif", random_classes(height, width))
    segment_scene(
        scene,
        ConstantModel((0.24, 0.56, 0.2)),
        folder / "map.tif",
        confidence=True,
        probabilities=True,
        settings=SegmentationSettings(tile_px=49, overlap_px=overlap),
    )
    assert (read_raster(folder / "map.tif") == 1).all()
    assert (read_raster(folder / "map_confidence.tif") == 56).all()
    for band, share in enumerate((0.24, 0.56, 0.2), start=1):
        found = read_raster(folder / "map_probabilities.tif", band)
        assert np.ptp(found) == 0
        assert_allclose(found[0, 0] / 250, share, atol=0.5 / 250 + 1e-6)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_the_map_lies_where_the_scene_lies(tmp_path, transform, crs):
    pixels = random_classes(70, 45)
    scene = write_raster(tmp_path / "s.tif", pixels, transform=transform, crs=crs)
    segment_scene(scene, IdentityModel(), tmp_path / "map.tif")
    with rasterio.open(scene) as first, rasterio.open(tmp_path / "map.tif") as second:
        assert first.transform.almost_equals(second.transform, 1e-12)
        assert (first.crs, first.shape) == (second.crs, second.shape)
    assert_array_equal(read_raster(tmp_path / "map.tif"), pixels[0])


def rows_of(plan, model, chunk):
    return class_rows(
        plan,
        model,
        chunk,
        batches=FittingBatches(plan.batch_size),
        tiles=TileProgress(plan.chunks, no_progress),
        collar=CollarWatch(plan.scene),
    )


def reference_blend(pixels: np.ndarray, model: FixedModel, plan) -> np.ndarray:
    """Whole-scene sums with 2-D weights, divided at the end: slow, and plain to see."""
    grid = plan.grid
    height, width, side = grid.height, grid.width, grid.tile_px
    padded = np.pad(pixels, ((0, 0), (0, side), (0, side)))
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    weight = np.outer(window, window)
    sums = np.zeros((len(model.legend), height + side, width + side))
    total = np.zeros((height + side, width + side))
    for row in grid.row_offsets:
        for col in grid.col_offsets:
            tile = torch.from_numpy(padded[None, :, row : row + side, col : col + side])
            valid = torch.zeros((1, side, side), dtype=torch.bool)
            valid[:, : height - row, : width - col] = True
            answer = model.probabilities(tile, valid)[0].numpy()
            sums[:, row : row + side, col : col + side] += answer * weight
            total[row : row + side, col : col + side] += weight
    return (sums / np.maximum(total, 1e-300))[:, :height, :width]


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    overlap=st.integers(0, 30),
    rows=st.integers(25, 120),
    cols=st.integers(25, 120),
)
@settings(max_examples=25)
def test_blending_is_the_weighted_mean_of_the_tiles_whatever_the_chunks(
    height, width, overlap, rows, cols, tmp_path_factory
):
    pixels = np.random.default_rng(5).integers(0, 200, (1, height, width)).astype(np.uint8)
    path = write_raster(tmp_path_factory.mktemp("blend") / "s.tif", pixels)
    model = SmoothModel(3)
    plan, _ = make_plan(
        path, model, SegmentationSettings(tile_px=31, overlap_px=overlap), probabilities=True
    )
    expected = reference_blend(pixels, model, plan)
    found = np.full((3, height, width), 255, dtype=np.uint8)
    for chunk in plan.grid.chunks(rows=rows, cols=cols):
        for part in rows_of(plan, model, chunk):
            found[:, *part.window.slices] = part.probabilities
            # The winner is chosen before rounding: where two are close, either may round higher.
            won = np.take_along_axis(part.probabilities, part.class_ids[None], axis=0)[0]
            assert (won.astype(int) >= part.probabilities.max(axis=0).astype(int) - 1).all()
    assert_allclose(found, expected * 250, atol=0.51)


def test_chunks_of_rows_give_the_same_bytes(tmp_path):
    pixels = np.random.default_rng(5).integers(0, 200, (1, 333, 77)).astype(np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels)
    model = SmoothModel(5)
    plan, _ = make_plan(
        path, model, SegmentationSettings(tile_px=40, overlap_px=13), probabilities=True
    )

    def segmented(rows: int) -> np.ndarray:
        found = np.zeros((5, 333, 77), dtype=np.uint8)
        for chunk in plan.grid.chunks(rows=rows, cols=77):
            for part in rows_of(plan, model, chunk):
                found[:, *part.window.slices] = part.probabilities
        return found

    whole = segmented(333)
    for rows in (1, 17, 100, 332):
        assert_array_equal(segmented(rows), whole)


def test_a_wide_scene_is_cut_into_panels_without_a_seam(tmp_path):
    pixels = random_classes(60, 2100)
    scene = write_raster(tmp_path / "s.tif", pixels)
    fixed = make_plan(scene, IdentityModel(), SegmentationSettings(tile_px=32))[
        0
    ].memory.panel_bytes(600)
    narrow = SegmentationSettings(tile_px=32, max_memory=fixed)
    plan, _ = make_plan(scene, IdentityModel(), narrow)
    assert plan.panels > 2
    assert plan.memory_bytes <= narrow.max_memory
    segment_scene(scene, IdentityModel(), tmp_path / "map.tif", settings=narrow)
    assert_array_equal(read_raster(tmp_path / "map.tif"), pixels[0])


def test_ids_of_the_legend_need_not_be_channel_numbers(tmp_path):
    pixels = random_classes(40, 33)
    scene = write_raster(tmp_path / "s.tif", pixels)
    model = IdentityModel()
    ids = np.array([3, 7, 300, 40_000])
    model.legend = Legend.of_names({int(i): f"code {i}" for i in ids})
    segment_scene(scene, model, tmp_path / "map.tif")
    found = read_raster(tmp_path / "map.tif")
    assert found.dtype == np.uint16
    assert_array_equal(found, ids[pixels[0]])


def test_a_scene_without_data_gives_a_map_without_data_and_a_warning(tmp_path, caplog):
    scene = write_raster(tmp_path / "s.tif", np.zeros((1, 70, 50), np.uint8), nodata=0)
    model = IdentityModel()
    with caplog.at_level(logging.WARNING):
        segment_scene(scene, model, tmp_path / "map.tif", confidence=True)
    assert (read_raster(tmp_path / "map.tif") == 255).all()
    assert (read_raster(tmp_path / "map_confidence.tif") == 255).all()
    assert model.tiles_seen == 0
    assert "holds no data" in caplog.text


def test_class_zero_and_nodata_zero_are_not_mixed_up(tmp_path):
    pixels = random_classes(50, 40) + 1
    pixels[0, 10:20] = 0
    model = IdentityModel(classes=5)
    scene = write_raster(tmp_path / "s.tif", pixels, nodata=0)
    segment_scene(scene, ConstantModel((0.9, 0.1)), tmp_path / "map.tif")
    found = read_raster(tmp_path / "map.tif")
    assert (found[10:20] == 255).all()
    assert (np.delete(found, np.s_[10:20], axis=0) == 0).all()
    assert model.tiles_seen == 0


def test_the_winner_is_that_of_argmax():
    generator = torch.Generator().manual_seed(0)
    for classes in (1, 2, 9, 300):
        values = torch.rand((classes, 7, 11), generator=generator)
        values[:, 3, 3] = 0.5
        channels, best = most_probable(values)
        assert_array_equal(channels.numpy(), values.argmax(dim=0).numpy())
        assert_array_equal(best.numpy(), values.amax(dim=0).numpy())


def test_an_output_that_is_there_is_kept(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(9, 8))
    (tmp_path / "map.tif").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"map\.tif: exists already"):
        segment_scene(scene, IdentityModel(), tmp_path / "map.tif")
    assert (tmp_path / "map.tif").read_text() == "mine"
    segment_scene(scene, IdentityModel(), tmp_path / "map.tif", overwrite=True)
    assert_array_equal(read_raster(tmp_path / "map.tif"), random_classes(9, 8)[0])


def test_a_scene_that_breaks_half_way_leaves_nothing_and_loses_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (1, 900, 300)).astype(np.uint8)
    scene = write_raster(tmp_path / "s.tif", pixels, compress="deflate", blockysize=16)
    scene.write_bytes(scene.read_bytes()[:150_000])
    (tmp_path / "map.tif").write_text("old")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(SceneError, match="cannot be read"):
        segment_scene(scene, IdentityModel(), tmp_path / "map.tif", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "map.tif").read_text() == "old"


def test_outputs_that_cannot_be_are_refused_before_the_work(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(9, 8))
    model = IdentityModel()

    def refuse(text, output, **options):
        with pytest.raises(OutputError, match=text):
            segment_scene(scene, model, output, overwrite=True, **options)

    refuse("is an input", scene)
    refuse("is a folder", tmp_path)
    refuse("does not exist", tmp_path / "absent" / "map.tif")
    refuse("must end in", tmp_path / "map.png")
    refuse("two outputs", tmp_path / "map.tif", confidence=tmp_path / "map.tif")
    refuse("is an input", tmp_path / "map.tif", confidence=scene)
    assert model.tiles_seen == 0


def test_a_scene_without_the_models_bands_is_refused(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(9, 8))
    model = IdentityModel()
    model.bands = (1, 2, 3)
    with pytest.raises(SceneError, match="has 1 band, but band 2 was requested"):
        segment_scene(scene, model, tmp_path / "map.tif")
    with pytest.raises(SceneError, match="gives 1 bands, but the model reads 3"):
        segment_scene(scene, model, tmp_path / "map.tif", settings=SegmentationSettings(bands=(1,)))


def test_tiles_that_do_not_fit_the_model_are_refused(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(9, 8))
    model = IdentityModel()
    model.tile_multiple = 14
    with pytest.raises(GridError, match="multiple of the model's 14 px"):
        segment_scene(scene, model, tmp_path / "map.tif", settings=SegmentationSettings(tile_px=20))
    with pytest.raises(GridError, match="overlap"):
        segment_scene(
            scene,
            model,
            tmp_path / "m.tif",
            settings=SegmentationSettings(tile_px=28, overlap_px=28),
        )


def test_the_default_stride_is_an_odd_multiple_of_half_a_patch(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(900, 800))
    for multiple, tile_px in ((14, 224), (14, 518), (16, 512), (1, 512)):
        model = IdentityModel(tile_px=tile_px)
        model.tile_multiple = multiple
        plan, _ = make_plan(scene, model, SegmentationSettings())
        half = max(multiple // 2, 1)
        assert plan.grid.stride_px % half == 0
        assert plan.grid.stride_px // half % 2 == 1
        assert 0.2 < plan.grid.overlap_px / tile_px < 0.35


def test_progress_rises_to_one(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(200, 150))
    told = []
    segment_scene(
        scene,
        IdentityModel(),
        tmp_path / "map.tif",
        progress=lambda fraction, message: told.append((fraction, message)),
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert "Mpx/s" in told[0][1]


class _BrokenModel(ConstantModel):
    def answer(self, pixels, valid):
        answer = super().answer(pixels, valid).clone()
        answer[:, :, 3, 3] = float("nan")
        return answer


def test_a_network_that_gives_no_numbers_is_not_class_zero(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(90, 80))
    with pytest.raises(ModelError, match="returned NaN or infinity in rows 0 to"):
        segment_scene(scene, _BrokenModel((0.4, 0.6)), tmp_path / "map.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tif"]


class LearningModel(IdentityModel):
    """Answers with gradients, as a network does that nobody told to stop."""

    def answer(self, pixels, valid):
        return super().answer(pixels, valid) * torch.ones((), requires_grad=True)


def test_a_network_of_others_need_not_know_of_gradients(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 4, (1, 45, 61)).astype(np.uint8)
    scene = write_raster(tmp_path / "s.tif", pixels)
    segment_scene(scene, LearningModel(4), tmp_path / "map.tif")
    assert_array_equal(read_raster(tmp_path / "map.tif"), pixels[0])


@pytest.mark.parametrize(
    "nonsense",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"resolution_m": 0.0},
        {"resolution_m": -0.1},
        {"resolution_m": float("nan")},
        {"resolution_m": float("inf")},
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_made(nonsense):
    with pytest.raises(GridError, match="give"):
        SegmentationSettings(**nonsense)


def test_a_resolution_at_which_tiles_are_a_pixel_is_refused(small_model, tmp_path):
    pixels = np.zeros((3, 200, 150), np.uint8)
    scene = write_raster(tmp_path / "s.tif", pixels, transform=NORTH_UP)
    model = load_model(small_model)
    assert model.pixel_size_m is not None
    settings = SegmentationSettings(resolution_m=400 * model.pixel_size_m)
    with pytest.raises(
        SceneError, match=r"a tile of the model covers only \d px.*Correct --resolution"
    ):
        make_plan(scene, model, settings)


def test_a_network_that_answers_in_another_shape_is_refused(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(90, 80))
    model = ConstantModel((0.4, 0.6))
    model.answer = lambda pixels, valid: torch.ones(len(pixels), 3, 32, 32)
    with pytest.raises(ModelError, match="expected a tensor of"):
        segment_scene(scene, model, tmp_path / "map.tif")


def test_a_network_that_answers_without_tensors_is_refused(tmp_path):
    scene = write_raster(tmp_path / "s.tif", random_classes(90, 80))
    model = ConstantModel((0.4, 0.6))
    model.answer = lambda pixels, valid: np.ones((len(pixels), 2, 32, 32))
    with pytest.raises(ModelError, match="returned ndarray"):
        segment_scene(scene, model, tmp_path / "map.tif")


def test_memory_that_is_too_small_for_a_batch_changes_nothing(tmp_path):
    pixels = random_classes(150, 140)
    scene = write_raster(tmp_path / "s.tif", pixels)
    model = IdentityModel()
    answer = model.answer

    def small(tiles, valid):
        if len(tiles) > 1:
            raise torch.OutOfMemoryError
        return answer(tiles, valid)

    model.answer = small
    choices = SegmentationSettings(tile_px=32, batch_size=5)
    segment_scene(scene, model, tmp_path / "map.tif", settings=choices)
    assert_array_equal(read_raster(tmp_path / "map.tif"), pixels[0])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *(("uint8", value) for value in (0, 255)),
        *(("int16", value) for value in (-32768, -9999)),
        *(("float32", value) for value in (0, -9999)),
    ],
)
def test_a_collar_that_nothing_marks_is_said_once(tmp_path, caplog, dtype, value):
    pixels = np.random.default_rng(1).integers(1, 255, (3, 300, 280)).astype(dtype)
    pixels[:, :, :90] = value
    model = ConstantModel((0.4, 0.6))
    model.bands = (1, 2, 3)
    scene = write_raster(tmp_path / "s.tif", pixels)
    segment_scene(scene, model, tmp_path / "map.tif")
    assert caplog.text.count(f"run again with --nodata {value}") == 1
    caplog.clear()
    choices = SegmentationSettings(nodata=value)
    segment_scene(scene, model, tmp_path / "map.tif", settings=choices, overwrite=True)
    assert "run again" not in caplog.text
    assert (read_raster(tmp_path / "map.tif")[:, :90] == 255).all()


@pytest.mark.parametrize(
    ("dtype", "value", "nodata"), [("uint8", 0, 255), ("int16", -32768, 0), ("float32", 0, -9999)]
)
def test_a_collar_beside_another_nodata_value_is_said_once(tmp_path, caplog, dtype, value, nodata):
    pixels = np.random.default_rng(1).integers(1, 255, (3, 300, 280)).astype(dtype)
    pixels[:, :30], pixels[:, 30:, :90] = nodata, value
    model = ConstantModel((0.4, 0.6))
    model.bands = (1, 2, 3)
    scene = write_raster(tmp_path / "s.tif", pixels, nodata=nodata)
    segment_scene(scene, model, tmp_path / "map.tif")
    assert caplog.text.count(f"run again with --nodata {value}, instead of {nodata}.") == 1


def test_clouds_in_a_scene_with_a_nodata_value_are_no_collar(tmp_path, caplog):
    pixels = np.random.default_rng(1).integers(1, 255, (3, 300, 280)).astype(np.uint8)
    pixels[:, :30], pixels[:, 100:, 200:] = 0, 255
    model = ConstantModel((0.4, 0.6))
    model.bands = (1, 2, 3)
    segment_scene(write_raster(tmp_path / "s.tif", pixels, nodata=0), model, tmp_path / "map.tif")
    assert "run again" not in caplog.text


def test_the_padding_of_a_scene_smaller_than_a_tile_is_no_collar(tmp_path, caplog):
    pixels = np.full((3, 700, 40), 120, dtype=np.uint8)
    pixels[:, :, 20:] = 200
    model = ConstantModel((0.4, 0.6), tile_px=512)
    model.bands = (1, 2, 3)
    segment_scene(write_raster(tmp_path / "s.tif", pixels), model, tmp_path / "map.tif")
    assert "--nodata" not in caplog.text


@pytest.mark.parametrize("name", ["s3:map.tif", "file:map.tif", "zip+s3:map.tif"])
def test_a_name_that_begins_like_an_address_is_refused_before_the_work(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    scene = write_raster(tmp_path / "s.tif", random_classes(60, 70))
    with pytest.raises(OutputError, match="would be read as an address; give another name"):
        segment_scene(scene, ConstantModel((0.4, 0.6)), name)
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


def test_a_resolution_for_a_model_without_one_is_warned_of(tmp_path, caplog):
    scene = write_raster(tmp_path / "s.tif", random_classes(60, 70))
    choices = SegmentationSettings(resolution_m=2.0)
    segment_scene(scene, ConstantModel((0.4, 0.6)), tmp_path / "map.tif", settings=choices)
    assert caplog.text.count("--resolution has no effect") == 1
