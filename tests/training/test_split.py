"""The split: what is held out, that no tile shows both sides, and that every class has its part."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from arrays import ArrayLabels, ArrayScene, patchy, squares
from hypothesis import assume, given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.crs import CRS
from rasters import ROTATED, write_raster

from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_labels
from geodinoseg.rasters.scene import open_scene
from geodinoseg.training.sampler import Sampler
from geodinoseg.training.settings import Augmentation
from geodinoseg.training.split.blocks import find_blocks
from geodinoseg.training.split.crop_shape import default_crop_px
from geodinoseg.training.split.folds import folds_of_groups, held_out_groups
from geodinoseg.training.split.split import NEITHER, NEVER, split_scenes

UTM = "EPSG:32633"

scenes_of_labels = st.tuples(
    st.integers(40, 260), st.integers(40, 260), st.integers(2, 40), st.integers(3, 30)
)


def split_of(*pairs, crop_px, share=0.2, seed=0):
    scenes, labels = zip(*pairs, strict=True)
    return split_scenes(scenes, labels, crop_px=crop_px, fraction=share, seed=seed)


def few_or_many(case, seed):
    height, width, count, side = case
    return squares(height, width, count=count, side=side, seed=seed)


@given(
    units=st.integers(1, 60),
    classes=st.integers(1, 4),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 10_000),
)
def test_a_quarter_of_each_class_and_more_is_left_to_train_on(units, classes, share, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 2000, (units, classes)) * rng.integers(0, 2, (units, 1))
    chosen = held_out_groups(counts, fraction=share, seed=seed)
    assert chosen.shape == (units,)
    assert (counts[chosen].sum(axis=0) <= counts.sum(axis=0) * (0.75 + 1e-9)).all()
    assert_array_equal(chosen, held_out_groups(counts, fraction=share, seed=seed))


@given(share=st.floats(0.05, 0.5), classes=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_where_units_are_many_each_class_gets_about_its_share(share, classes, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(100, 1000, (156, classes)) * rng.integers(0, 2, (156, classes))
    taken = counts[held_out_groups(counts, fraction=share, seed=seed)].sum(axis=0)
    assert_allclose(taken / counts.sum(axis=0), share, atol=0.05)


def test_no_share_nothing_is_held_out():
    assert not held_out_groups(np.full((35, 2), 100), fraction=0, seed=1).any()
    split = split_of(patchy(130, 90, seed=0), crop_px=10, share=0)
    assert split.folds == 0
    assert (split.scenes[0].folds == NEVER).all()


def test_a_class_in_one_unit_alone_stays_in_training():
    counts = np.full((42, 2), 100)
    counts[:, 1] = 0
    counts[17, 1] = 5000
    for seed in range(20):
        chosen = held_out_groups(counts, fraction=0.3, seed=seed)
        assert chosen.any()
        assert not chosen[17]


def test_a_rare_class_in_two_units_is_on_both_sides():
    counts = np.full((60, 2), 100)
    counts[:, 1] = 0
    counts[[8, 31], 1] = 3, 4
    for seed in range(20):
        chosen = held_out_groups(counts, fraction=0.05, seed=seed)
        assert chosen[[8, 31]].sum() == 1


@given(units=st.integers(1, 30), classes=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_no_fold_takes_all_of_a_class_and_folds_are_numbered_without_gaps(units, classes, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 900, (units, classes)) * rng.integers(0, 2, (units, classes))
    counts[(counts == 0).all(axis=1), 0] = 1
    folds = folds_of_groups(counts, most=8, seed=seed)
    used = np.unique(folds[folds != NEVER])
    assert_array_equal(used, np.arange(len(used)))
    assert len(used) <= 8
    for fold in used:
        left = counts[folds != fold].sum(axis=0)
        assert (left[counts.any(axis=0)] > 0).all()
    sole = ((counts == counts.sum(axis=0)) & (counts > 0)).any(axis=1)
    assert (folds[sole] == NEVER).all()


@given(
    case=scenes_of_labels,
    crop_px=st.integers(8, 40),
    scale=st.floats(1, 1.6),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_no_tile_shows_land_of_both_sides(case, crop_px, scale, seed):
    scene, labels = few_or_many(case, seed)
    split = split_of((scene, labels), crop_px=crop_px, seed=seed)
    (part,) = split.scenes
    assume(part.block_px >= crop_px)
    for fold in range(split.folds):
        sampler = Sampler(
            split.scenes,
            crop_px=crop_px,
            augmentation=Augmentation(scale=scale),
            seed=seed,
            fold=fold,
        )
        held = part.held_out(fold).repeat(part.block_px, 0).repeat(part.block_px, 1)
        with sampler:
            scene.windows.clear()
            sampler.batch(0, 10)
            assert not any(held[window.slices].any() for window in scene.windows)
            scene.windows.clear()
            for piece in sampler.validation_pieces():
                sampler.validation_crop(*piece)
            assert all(held[window.slices].all() for window in scene.windows)


@given(case=scenes_of_labels, crop_px=st.integers(8, 60), seed=st.integers(0, 99))
def test_every_label_is_held_out_once_or_trains_in_every_fold(case, crop_px, seed):
    scene, labels = few_or_many(case, seed)
    split = split_of((scene, labels), crop_px=crop_px, seed=seed)
    (part,) = split.scenes
    total = part.counts.sum(axis=(0, 1))
    assert_array_equal(total, np.bincount(labels.channels[labels.channels != IGNORE], minlength=3))
    for fold in range(split.folds):
        sides = [part.pixels_of(fold, held_out=side) for side in (True, False)]
        assert_array_equal(sum(sides), total)
        assert sides[0].any(), "a fold without labels says nothing"
        assert (sides[1][total > 0] > 0).all(), "every class is trained on"
    assert split.folds != 2 or set(np.unique(part.folds)) >= {0, 1}
    again = split_of((scene, labels), crop_px=crop_px, seed=seed)
    assert again.folds == split.folds
    assert_array_equal(again.scenes[0].folds, part.folds)
    assert_array_equal(part.pixels_of(None, held_out=False), total)
    assert not part.held_out(None).any()


@given(case=scenes_of_labels, crop_px=st.integers(4, 12), seed=st.integers(0, 99))
def test_a_class_in_several_blocks_is_on_both_sides_of_a_fixed_part(case, crop_px, seed):
    split = split_of(few_or_many(case, seed), crop_px=crop_px, seed=seed)
    (part,) = split.scenes
    assume(split.folds == 1 and part.block_px >= crop_px)
    finest = part.labels.class_blocks(crop_px)
    # A block at the end that is narrower than a crop goes with its neighbour.
    full = (part.scene.height // crop_px, part.scene.width // crop_px)
    several = (finest[: full[0], : full[1]] > 0).sum(axis=(0, 1)) > 1
    for side in (True, False):
        assert (part.pixels_of(0, held_out=side)[several] > 0).all()


def test_a_large_scene_has_about_its_share_in_blocks_of_two_crops():
    split = split_of(squares(900, 700, count=400, side=15), crop_px=20, share=0.25)
    (part,) = split.scenes
    assert (split.folds, part.block_px) == (1, 40)
    shares = part.pixels_of(0, held_out=True) / part.counts.sum(axis=(0, 1))
    assert_allclose(shares, 0.25, atol=0.05)


def test_few_labelled_places_are_each_held_out_once():
    channels = np.full((400, 500), IGNORE)
    for number, (row, col) in enumerate([(0, 0), (10, 300), (200, 100), (350, 450), (210, 330)]):
        channels[row : row + 20, col : col + 20] = number % 2
        channels[row + 20 : row + 40, col : col + 20] = 1 - number % 2
    pair = ArrayScene(np.ones(channels.shape, bool)), ArrayLabels(channels, 2)
    split = split_of(pair, crop_px=50)
    (part,) = split.scenes
    assert split.folds == 3
    assert part.block_px == 50
    held = np.sum([part.held_out(fold) for fold in range(3)], axis=0)
    assert_array_equal(held[part.counts.any(axis=2)], 1)


def test_more_places_than_folds_share_folds_with_each_class_in_all():
    channels = np.full((90, 90), IGNORE)
    for row in range(0, 90, 30):
        for col in range(0, 90, 30):
            channels[row : row + 9, col : col + 20] = 0
            channels[row + 9 : row + 20, col : col + 20] = 1
    pair = ArrayScene(np.ones(channels.shape, bool)), ArrayLabels(channels, 2)
    split = split_of(pair, crop_px=30)
    assert split.folds == 3
    for fold in range(3):
        assert (split.scenes[0].pixels_of(fold, held_out=True) > 0).all()
    assert not split.warnings


def test_a_scene_smaller_than_two_crops_is_cut_finer_and_that_is_said():
    split = split_of(patchy(55, 70, seed=3), crop_px=40)
    assert split.folds == 3
    assert split.scenes[0].block_px < 40
    assert "smaller than two crops of 40 px" in split.warnings[0]


def test_chips_that_lie_apart_are_held_out_whole():
    chips = [patchy(50, 50, seed=number) for number in range(48)]
    split = split_of(*chips, crop_px=40)
    assert split.folds == 1
    assert all(np.ptp(part.folds) == 0 for part in split.scenes)
    assert not split.warnings


def footprints(split, fold, *, held):
    """Ground of the labelled held-out blocks of each scene, or of the blocks it trains on."""
    found = []
    for part in split.scenes:
        labelled = part.counts.any(axis=2)
        blocks = part.held_out(fold) & labelled if held else part.trains(fold)
        boxes = [
            shapely.Polygon(
                [
                    part.scene.geobox.transform @ corner
                    for corner in (
                        (w.col_off, w.row_off),
                        (w.col_end, w.row_off),
                        (w.col_end, w.row_end),
                        (w.col_off, w.row_end),
                    )
                ]
            )
            for w in (part.block(*at) for at in np.argwhere(blocks))
        ]
        found.append(shapely.union_all(boxes))
    return found


@pytest.mark.parametrize("stride", [20, 27, 40])
@pytest.mark.parametrize("turn", [0, 17])
def test_chips_with_a_stride_never_show_held_out_land_in_training(stride, turn):
    base = Affine.translation(4e5, 5e6) @ Affine.rotation(turn) @ Affine.scale(0.5, -0.5)
    chips = []
    for row in range(9):
        for col in range(11):
            scene, labels = patchy(40, 40, seed=row * 11 + col)
            transform = base @ Affine.translation(col * stride, row * stride)
            chips.append((ArrayScene(scene.valid, transform=transform, crs=UTM), labels))
    split = split_of(*chips, crop_px=40)
    assert split.folds == (3 if stride == 20 else 1)
    for fold in range(split.folds):
        held, trained = (footprints(split, fold, held=side) for side in (True, False))
        assert shapely.union_all(held).intersection(shapely.union_all(trained)).area < 1e-3
        sides = [
            sum(p.pixels_of(fold, held_out=side) for p in split.scenes) for side in (True, False)
        ]
        assert (np.array(sides) > 0).all()
    neither = sum((part.folds == NEITHER).all() for part in split.scenes)
    assert (neither > 0) == (stride < 40)
    assert neither < 0.6 * len(chips)


@pytest.mark.parametrize("crs", [UTM, "EPSG:3857"])
def test_two_flights_over_one_field_share_one_split(crs):
    first, labels = squares(
        300, 300, count=60, side=12, seed=1, transform=Affine(0.5, 0, 4e5, 0, -0.5, 5e6), crs=UTM
    )
    place = {"transform": Affine(0.5, 0, 4e5 + 3.2, 0, -0.5, 5e6 - 4.1), "crs": UTM}
    if crs != UTM:
        x, y = geopandas.points_from_xy([4e5 + 3.2], [5e6 - 4.1], crs=UTM).to_crs(crs)[0].coords[0]
        place = {"transform": Affine(0.72, 0, x, 0, -0.72, y), "crs": crs}
    second = squares(280, 310, count=60, side=12, seed=2, **place)
    split = split_of((first, labels), second, crop_px=30)
    for fold in range(split.folds):
        held, trained = (footprints(split, fold, held=side) for side in (True, False))
        if crs != UTM:
            held[1], trained[1] = (
                geopandas.GeoSeries([ground], crs=crs).to_crs(UTM)[0]
                for ground in (held[1], trained[1])
            )
        for one, other in ((0, 1), (1, 0)):
            shared = held[one].intersection(trained[other]).area
            assert shared < 0.01 * held[one].area + 1e-9
    assert split.folds >= 1


@pytest.mark.parametrize(
    ("crs", "left"), [("EPSG:4326", -180.0), ("EPSG:4326", 180.0), ("EPSG:32760", 816_000)]
)
def test_flights_over_one_field_at_the_180th_meridian_share_one_split(crs, left):
    """Longitudes that begin again, or run on, are those of the same land."""
    first, labels = squares(
        300,
        300,
        count=60,
        side=12,
        seed=1,
        transform=Affine(1e-5, 0, 180 - 0.0012, 0, -1e-5, -17),
        crs="EPSG:4326",
    )
    if crs == "EPSG:4326":
        place = Affine(1e-5, 0, left, 0, -1e-5, -17)
    else:
        point = geopandas.points_from_xy([179.999], [-17.0], crs=4326).to_crs(crs)[0]
        place = Affine(1, 0, point.x, 0, -1, point.y)
    second = squares(280, 310, count=60, side=12, seed=2, transform=place, crs=crs)
    far = squares(
        300, 300, count=60, side=12, seed=3, transform=Affine(1e-5, 0, 0, 0, -1e-5, -17), crs=4326
    )
    blocks = blocks_of((first, labels), second, far)
    pairs = blocks.scene[blocks.shared_land]
    assert {(0, 1), (1, 0)} <= set(map(tuple, pairs.tolist()))
    assert 2 not in pairs


MARS, SITE = "IAU_2015:49910", 'LOCAL_CS["site",UNIT["metre",1]]'


def test_scenes_of_unrelated_systems_share_no_land_and_those_of_one_do():
    place = {"transform": Affine(0.5, 0, 4e5, 0, -0.5, 5e6)}
    of = [UTM, MARS, SITE, MARS, "EPSG:32634", None]
    blocks = blocks_of(
        *(
            squares(
                200,
                200,
                count=60,
                side=12,
                seed=seed,
                crs=crs and CRS.from_user_input(crs),
                **place,
            )
            for seed, crs in enumerate(of)
        )
    )
    pairs = set(map(tuple, blocks.scene[blocks.shared_land].tolist()))
    assert pairs == {(1, 3), (3, 1)}


def blocks_of(*pairs):
    scenes, labels = zip(*pairs, strict=True)
    counts = [found.class_blocks(50) for found in labels]
    return find_blocks(
        scenes, labels, counts, blocks_px=[50] * len(scenes), crops_px=[30] * len(scenes)
    )


def write_polygons(path, boxes, transform=ROTATED):
    ground = shapely.transform(
        np.array(boxes, dtype=object), lambda xy: np.column_stack(transform @ tuple(xy.T))
    )
    frame = geopandas.GeoDataFrame(
        {"class": ["field", "roof"] * (len(boxes) // 2) + ["field"] * (len(boxes) % 2)},
        geometry=list(ground),
        crs=UTM,
    )
    frame.to_file(path)
    return path


def test_a_polygon_over_a_block_border_stays_on_one_side(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.ones((3, 600, 640), np.uint8)))
    rng = np.random.default_rng(0)
    corners = [(c * 160 + 60, r * 80 + 15) for r in range(7) for c in range(4)]
    boxes = [shapely.box(x, y, x + 40, y + rng.integers(20, 40)) for x, y in corners]
    labels = open_labels(write_polygons(tmp_path / "l.gpkg", boxes), scene.geobox)
    split = split_of((scene, labels), crop_px=40)
    assert not split.warnings
    (part,) = split.scenes
    for fold in range(split.folds):
        side = part.held_out(fold).repeat(part.block_px, 0).repeat(part.block_px, 1)
        assert side.any()
        for x, y in corners:
            assert np.ptp(side[y : y + 20, x : x + 40].astype(int)) == 0


def test_one_polygon_over_everything_is_cut_and_that_is_said(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", np.ones((3, 300, 340), np.uint8)))
    boxes = [shapely.box(0, 0, 340, 140), shapely.box(0, 150, 340, 300)]
    labels = open_labels(write_polygons(tmp_path / "l.gpkg", boxes), scene.geobox)
    split = split_of((scene, labels), crop_px=20)
    assert split.folds == 1
    (warning,) = split.warnings
    assert warning.startswith(
        "100% of the labelled area lies in polygons that extend from training"
    )


def box(width, height, pixel_size_m):
    transform = Affine(pixel_size_m, 0, 5e5, 0, -pixel_size_m, 5e6)
    return GeoBox(crs=CRS.from_epsg(32633), transform=transform, width=width, height=height)


@pytest.mark.parametrize(
    ("grids", "patch_px", "crop_px"),
    [
        ([box(3072, 704, 0.13)], 14, 224),
        ([box(640, 640, 0.05)], 14, 84),
        ([box(300, 248, 10.0)], 14, 56),
        ([box(10_980, 10_980, 10.0)], 14, 56),
        ([box(10_980, 10_980, 10.0)], 16, 64),
        ([box(256, 256, 0.3)] * 40, 14, 224),
        ([box(640, 640, 0.05)], None, 112),
        ([box(50, 50, 0.05)], 14, 56),
    ],
)
def test_crops_follow_from_size_and_resolution(grids, patch_px, crop_px):
    assert default_crop_px(grids, patch_px=patch_px) == crop_px
