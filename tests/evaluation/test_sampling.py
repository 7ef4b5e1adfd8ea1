"""Stratified samples of a map: how many points, which pixels, the file, and what comes back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from olofsson import COUNTS, PIXELS
from rasterio.crs import CRS
from rasters import ROTATED, write_raster
from sampled_maps import NAMES, fill, map_classes, patches, read_layer, write_map

from geodinoseg.cli import main
from geodinoseg.errors import GeodinosegError, LabelError, SceneError
from geodinoseg.evaluation.sampling.draw import SampleOptions, allocate, draw_sample, sample_size
from geodinoseg.evaluation.sampling.evaluate import evaluate_sample
from geodinoseg.evaluation.sampling.strata import SQUARE_PX, count_strata, draw_pixels
from geodinoseg.progress import no_progress
from geodinoseg.qgis.geopackage import add_note, read_note
from geodinoseg.rasters.class_raster import open_class_raster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sampling")


@pytest.fixture(scope="module")
def class_map(folder):
    return write_map(folder / "map.tif", patches())


def test_the_papers_sample_size_comes_out():
    """Section 5.1.1: U = 0.70, 0.60, 0.90, 0.95 and S(O) = 0.01 need 641 points."""
    weights = PIXELS / PIXELS.sum()
    assert sample_size(weights, np.array([0.70, 0.60, 0.90, 0.95]), 0.01) == 641


def test_rare_classes_get_their_least_and_the_others_share_the_rest_by_area():
    weights = PIXELS / PIXELS.sum()
    points = allocate(641, weights=weights, pixels=PIXELS, allocation="balanced", min_per_class=75)
    assert_array_equal(points, [75, 75, 163, 328])
    equal = allocate(641, weights=weights, pixels=PIXELS, allocation="equal", min_per_class=50)
    assert sorted(equal.tolist()) == [160, 160, 160, 161]
    by_area = allocate(
        641, weights=weights, pixels=PIXELS, allocation="proportional", min_per_class=50
    )
    assert_allclose(by_area, 641 * weights, atol=1)


@given(
    pixels=st.lists(st.integers(1, 10_000), min_size=1, max_size=8),
    share=st.floats(0, 1),
    rule=st.sampled_from(["balanced", "proportional", "equal"]),
    least=st.integers(2, 60),
)
def test_allocations_add_up_and_keep_within_what_there_is(pixels, share, rule, least):
    pixels = np.array(pixels)
    weights = pixels / pixels.sum()
    lowest = np.minimum(least if rule == "balanced" else 2, pixels)
    points = int(lowest.sum() + share * (pixels.sum() - lowest.sum()))
    found = allocate(points, weights=weights, pixels=pixels, allocation=rule, min_per_class=least)
    assert found.sum() == points
    assert (found >= lowest).all()
    assert (found <= pixels).all()
    # A larger class has no fewer points, but for rounding.
    order = np.argsort(pixels, kind="stable")
    assert (np.diff(found[order]) >= -1).all()


def test_too_few_and_too_many_points_are_said_in_a_line():
    pixels = np.array([100, 100, 5])
    kwargs = {"weights": pixels / 205, "pixels": pixels, "allocation": "balanced"}
    with pytest.raises(SceneError, match="give --points 105 or more"):
        allocate(104, **kwargs, min_per_class=50)
    with pytest.raises(SceneError, match="more than the 205 pixels"):
        allocate(206, **kwargs, min_per_class=50)


@pytest.mark.parametrize("squares_at_once", [1, 2, 7])
def test_pixels_and_areas_of_classes_are_those_of_the_raster(class_map, squares_at_once):
    raster = open_class_raster(class_map)
    strata = count_strata(raster, progress=no_progress, squares_at_once=squares_at_once)
    pixels = patches()
    assert strata.pixels.tolist() == [(pixels == class_id).sum() for class_id in NAMES]
    assert_allclose(strata.areas_m2, strata.pixels * 0.35)
    assert len(strata.square_weights) == 2 * 3
    assert strata.square_weights[5].tolist() == [
        (pixels[SQUARE_PX:, 2 * SQUARE_PX :] == class_id).sum() for class_id in NAMES
    ]


def test_areas_in_degrees_are_those_on_the_ellipsoid(tmp_path):
    pixels = patches(90, 60)
    path = write_map(
        tmp_path / "d.tif", pixels, crs="EPSG:4326", transform=Affine(0.5, 0, -3, 0, -0.5, 60)
    )
    raster = open_class_raster(path)
    strata = count_strata(raster, progress=no_progress)
    expected = [
        ((pixels == class_id).sum(axis=1) * raster.geobox.row_areas_m2).sum() for class_id in NAMES
    ]
    assert_allclose(strata.areas_m2, expected, rtol=1e-12)


def test_points_are_drawn_from_their_class_without_repetition(class_map):
    strata = count_strata(open_class_raster(class_map), progress=no_progress)
    drawn = draw_pixels(strata, np.array([400, 300, 99, 0]), seed=3, progress=no_progress)
    pixels = patches()
    for class_id, found in zip(NAMES, drawn, strict=True):
        assert (pixels[found[:, 0], found[:, 1]] == class_id).all()
        assert len(np.unique(found, axis=0)) == len(found)
    # All 99 pixels of the rare class were asked for.
    assert len(drawn[2]) == (pixels == 9).sum() == 99


@pytest.mark.parametrize("degrees", [False, True])
def test_every_pixel_of_a_class_has_a_chance_by_its_area(tmp_path, degrees):
    """On a map over two squares, drawn 400 times; in degrees rows near the pole are rarer."""
    pixels = np.full((12, 520), 4, dtype=np.uint8)
    pixels[:, 3:515] = 1
    place = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, -90, 0, -4, 70)} if degrees else {}
    raster = open_class_raster(write_map(tmp_path / "m.tif", pixels, **place))
    strata = count_strata(raster, progress=no_progress)
    times, per_draw = 400, 6
    hits = np.zeros(pixels.shape)
    for seed in range(times):
        found = draw_pixels(strata, np.array([0, per_draw, 0, 0]), seed=seed, progress=no_progress)[
            1
        ]
        np.add.at(hits, tuple(found.T), 1)
    assert hits[pixels != 4].sum() == 0
    areas = np.broadcast_to(raster.geobox.row_areas_m2[:, None], pixels.shape)[pixels == 4]
    expected = times * per_draw * areas / areas.sum()
    chi_squared = ((hits[pixels == 4] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    # Mean +- 4 standard deviations of a chi-squared; 6 of 96 draws without repetition take 6% off.
    assert abs(chi_squared - freedom * (1 - per_draw / 96)) < 4 * np.sqrt(2 * freedom)
    if degrees:
        by_row = hits.sum(axis=1)
        assert by_row[0] < 0.6 * by_row[-1]


def test_the_same_seed_draws_the_same_points_and_another_seed_others(folder, class_map):
    first, again, other = (folder / name for name in ("a.gpkg", "b.gpkg", "c.gpkg"))
    for path, seed in ((first, 5), (again, 5), (other, 6)):
        draw_sample(class_map, path, options=SampleOptions(points=200, seed=seed))
    frames = [read_layer(path) for path in (first, again, other)]
    assert frames[0].geometry.equals(frames[1].geometry)
    assert map_classes(first) == map_classes(again)
    assert not frames[0].geometry.equals(frames[2].geometry)
    written = first.read_bytes()
    first.unlink()
    draw_sample(class_map, first, options=SampleOptions(points=200, seed=5))
    assert first.read_bytes() == written, "the clock has gone on"


def test_the_file_hides_the_maps_class_and_offers_the_classes_in_qgis(folder, class_map):
    path = folder / "points.gpkg"
    design = draw_sample(class_map, path, options=SampleOptions(points=180))
    assert [(s.class_id, s.name) for s in design.strata] == [
        (1, "water"),
        (4, "wood"),
        (9, "field <&>"),
    ]
    assert design.points == 180
    layers = dict(pyogrio.list_layers(path).tolist())
    assert layers["points"] == "Point"
    assert set(layers) == {"points", "layer_styles"}
    frame = read_layer(path)
    assert list(frame.columns) == ["point_id", "reference", "geometry"]
    assert frame["reference"].isna().all()
    assert frame["point_id"].tolist() == list(range(1, 181))
    # Of shuffled points neighbours in the list differ about as often as chance has it.
    classes = np.array([map_classes(path)[number] for number in frame["point_id"]])
    runs = (np.diff(classes) != 0).mean()
    shares = np.unique(classes, return_counts=True)[1] / 180
    assert runs == pytest.approx(1 - (shares**2).sum(), abs=0.12)
    positions = shapely.get_coordinates(frame.geometry.to_numpy())
    cols, rows = np.array([~ROTATED @ tuple(point) for point in positions]).T
    assert_allclose([cols % 1, rows % 1], 0.5, atol=1e-6)
    assert (patches()[rows.astype(int), cols.astype(int)] == classes).all()
    style = pyogrio.read_dataframe(path, layer="layer_styles")["styleQML"][0]
    assert 'type="ValueMap"' in style
    assert 'name="field &lt;&amp;&gt;"' in style


def test_answers_come_back_as_the_error_matrix(folder, class_map):
    """By name, by id, in other capitals, with blanks; a legend's class that the map lacks."""
    path = folder / "answered.gpkg"
    draw_sample(class_map, path, options=SampleOptions(points=160))
    drawn = map_classes(path)
    answers, expected = {}, np.zeros((3, 5), dtype=int)
    spoken = {1: ["water", " 1 "], 4: ["Wood", "wood"], 9: ["9", "FIELD <&>"]}
    rows = {1: 0, 4: 1, 9: 2}
    for number, class_id in drawn.items():
        said = spoken[class_id][number % 2]
        column = rows[class_id]
        if number % 7 == 0:
            said, column = "rock", 3
        elif number % 11 == 0:
            said, column = "snow", 4
        if number % 13 == 0:
            continue
        answers[number] = said
        expected[rows[class_id], column] += 1
    fill(path, answers)
    with pytest.raises(
        LabelError, match=r"reference holds values that are not classes: 'snow' \(\d+\)"
    ):
        evaluate_sample(class_map, path)
    found = evaluate_sample(class_map, path, further_classes=("snow",))
    assert_array_equal(found.estimates.counts, expected)
    assert [entry.name for entry in found.classes] == [
        "water",
        "wood",
        "field <&>",
        "rock",
        "snow",
    ]
    assert found.unanswered.sum() == len(drawn) - len(answers) > 0
    assert found.right.sum() == np.trace(expected)
    pixels = patches()
    areas = [(pixels == class_id).sum() * 0.35 for class_id in (1, 4, 9)]
    assert_allclose(found.estimates.mapped_area_m2, areas)


def test_a_sample_in_another_crs_finds_its_pixels(folder, class_map):
    path = folder / "answered_there.gpkg"
    draw_sample(class_map, path, options=SampleOptions(points=160))
    by_id = {1: "water", 4: "wood", 9: "field <&>"}
    fill(path, {number: by_id[class_id] for number, class_id in map_classes(path).items()})
    moved = folder / "moved.gpkg"
    read_layer(path).to_crs(3857).to_file(moved, layer="moved")
    add_note(moved, read_note(path))
    found = evaluate_sample(class_map, moved)
    assert float(found.estimates.overall.value) == 1.0


def test_the_published_example_comes_out_of_the_files(tmp_path):
    """A map in the paper's proportions and of its area, of coarser pixels; the paper's counts.

    More points are drawn than the paper has; those too many are left open.
    """
    rows = np.repeat([1, 2, 3, 4], [4, 3, 64, 129])
    names = {1: "deforestation", 2: "forest gain", 3: "stable forest", 4: "stable non-forest"}
    place = {"transform": Affine(300, 0, 5e5, 0, -300, 5e6), "crs": "EPSG:6933"}
    class_map = write_map(tmp_path / "map.tif", rows[:, None].repeat(500, axis=1), names, **place)
    path, output = tmp_path / "points.gpkg", tmp_path / "report.json"
    draw_sample(class_map, path, options=SampleOptions(points=700, min_per_class=75))
    left = [[c for c, n in zip(names, row, strict=True) for _ in range(n)] for row in COUNTS]
    answers = {}
    for number, class_id in sorted(map_classes(path).items()):
        if left[class_id - 1]:
            answers[number] = names[left[class_id - 1].pop()]
    assert not any(left)
    fill(path, answers)
    arguments = ["evaluate", str(class_map), "--sample", str(path), "-o", str(output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "60 of 700 points have no reference class" in result.stderr
    assert "21,158 ± 6,158" in result.stdout
    assert "overall accuracy 0.947 ± 0.018" in result.stdout
    areas = json.loads(output.read_text())["sample"]["area_m2"]
    hectares = [round(value / 1e4) for value in areas["value"]]
    margins = [round(1.96 * error / 1e4) for error in areas["standard_error"]]
    assert hectares == [21_158, 11_686, 285_770, 581_386]
    assert margins == [6_158, 3_756, 15_510, 16_282]


def refused(class_map, path):
    result = CliRunner().invoke(main, ["evaluate", str(class_map), "--sample", str(path)])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.fixture
def copied(folder, class_map, tmp_path):
    """Makes copies of one sample of the map, each in a folder of its own, answered and changed."""
    drawn = folder / "to_copy" / "points.gpkg"
    if not drawn.exists():
        drawn.parent.mkdir()
        draw_sample(class_map, drawn, options=SampleOptions(points=160))
    right = {1: "water", 4: "wood", 9: "field <&>"}

    def copy(name, change=None, answer=True):
        path = tmp_path / name / "points.gpkg"
        path.parent.mkdir()
        shutil.copy(drawn, path)
        if answer:
            fill(path, {number: right[class_id] for number, class_id in map_classes(path).items()})
        with closing(sqlite3.connect(path)) as database, database:
            for (trigger,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'points'"
            ).fetchall():
                database.execute(f'DROP TRIGGER "{trigger}"')
            if change:
                database.execute(change)
        return path

    return copy


def test_a_map_without_a_crs_is_sampled_and_said_to_be_taken_in_metres(tmp_path, caplog):
    path = tmp_path / "points.gpkg"
    class_map = write_map(tmp_path / "map.tif", patches(90, 130), crs=None)
    draw_sample(class_map, path, options=SampleOptions(points=150))
    names = {1: "water", 4: "wood", 9: "field <&>"}
    fill(path, {number: names[class_id] for number, class_id in map_classes(path).items()})
    found = evaluate_sample(class_map, path)
    assert found.right.all()
    assert "has no CRS" in caplog.text


@pytest.mark.parametrize(
    ("crs", "step"),
    [
        ("+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180", 0.001),
        ("+proj=eqearth +lon_0=30 +datum=WGS84", 100),
        ('LOCAL_CS["site grid",UNIT["metre",1]]', 1),
        ("IAU_2015:49900", 0.001),
        ("EPSG:4807", 0.001),
    ],
    ids=["rotated pole", "equal earth", "site", "mars", "grads"],
)
def test_a_map_of_any_crs_is_sampled_and_the_points_are_found_again(tmp_path, crs, step):
    place = {"crs": CRS.from_user_input(crs), "transform": Affine(step, 0, 10, 0, -step, 45)}
    class_map = write_map(tmp_path / "map.tif", patches(90, 130), **place)
    path = tmp_path / "points.gpkg"
    draw_sample(class_map, path, options=SampleOptions(points=150))
    names = {1: "water", 4: "wood", 9: "field <&>"}
    fill(path, {number: names[class_id] for number, class_id in map_classes(path).items()})
    found = evaluate_sample(class_map, path)
    assert found.right.all()
    assert len(found.right) == 150


def test_a_sample_that_cannot_be_used_is_refused_in_a_line(tmp_path, class_map, copied):
    assert "no point has a reference class yet" in refused(class_map, copied("open", answer=False))
    few = copied("few")
    rare = [number for number, class_id in map_classes(few).items() if class_id == 9]
    fill(few, {number: "water" for number in map_classes(few) if number not in rare[1:]})
    assert "class field <&> has 1 answered of its 50 points" in refused(class_map, few)
    assert "holds values that are not classes: 'huose' (159), 'x' (1)" in refused(
        class_map,
        copied(
            "typing",
            "UPDATE points SET reference = CASE point_id WHEN 7 THEN 'x' ELSE 'huose' END",
        ),
    )
    assert "no longer has a column 'reference'" in refused(
        class_map,
        copied("gone", "ALTER TABLE points RENAME COLUMN reference TO ref"),
    )
    assert "not drawn but added later, 1 in total (point_id 999)" in refused(
        class_map,
        copied("more", "UPDATE points SET point_id = 999 WHERE point_id = 3"),
    )
    assert "point 4 occurs twice" in refused(
        class_map,
        copied("twice", "UPDATE points SET point_id = 4 WHERE point_id = 3"),
    )
    assert "holds a geometry that is not a point" in refused(
        class_map,
        copied("lost", "UPDATE points SET geom = NULL WHERE point_id = 3"),
    )
    assert "is not a sample drawn by geodinoseg" in refused(
        class_map, copied("bare", "DELETE FROM gpkg_metadata")
    )
    for name, field, value in (
        ("area", "area_m2", "?"),
        ("zero", "area_m2", 0),
        ("n", "points", 9),
    ):
        broken = copied(name)
        note = read_note(broken)
        note["strata"][0][field] = value
        with closing(sqlite3.connect(broken)) as database, database:
            database.execute("DELETE FROM gpkg_metadata")
        add_note(broken, note)
        assert "is not a sample drawn by geodinoseg" in refused(class_map, broken)
    text = tmp_path / "text.gpkg"
    text.write_text("point_id,reference\n")
    assert "is not a sample drawn by geodinoseg" in refused(class_map, text)
    assert "no such file" in refused(class_map, tmp_path / "none.gpkg")


def test_a_sample_of_another_map_is_refused_in_a_line(tmp_path, class_map, copied):
    path = copied("points")
    pixels = patches()
    changed = write_map(tmp_path / "changed.tif", np.where(pixels == 1, 4, pixels))
    assert "the map has another class than the one they were drawn from" in refused(changed, path)
    cut = write_map(tmp_path / "cut.tif", pixels[:300])
    assert "of the points lie outside" in refused(cut, path)
    holes = pixels.copy()
    holes[::2] = 255
    assert "no class instead of" in refused(write_map(tmp_path / "holes.tif", holes), path)
    renamed = write_map(tmp_path / "renamed.tif", pixels, NAMES | {4: "forest"})
    assert "a map with the class 4 wood" in refused(renamed, path)


def test_a_map_that_gives_no_sample_is_refused_in_a_line_and_nothing_is_left(tmp_path, class_map):
    empty = write_map(tmp_path / "empty.tif", np.full((7, 9), 255))
    bare = patches(60, 70)[None].astype(np.uint8)
    nowhere = write_raster(tmp_path / "nowhere.tif", bare, nodata=255, crs=None, transform=None)
    things = np.arange(1_200, dtype=np.uint16).reshape(1, 30, 40)
    numbers = write_raster(tmp_path / "numbers.tif", things)
    output = tmp_path / "points.gpkg"
    for raster, options, said in (
        (empty, {}, "holds no class"),
        (class_map, {"points": 100}, "give --points 150 or more"),
        (class_map, {"expected_by_class": {"sea": 0.5}}, "has no class 'sea'"),
        (tmp_path / "none.tif", {}, "no such file"),
        (nowhere, {}, "is not georeferenced"),
        (numbers, {}, "has 1,200 classes, more than 1,000; give a raster of classes"),
    ):
        with pytest.raises(GeodinosegError, match=said) as caught:
            draw_sample(raster, output, options=SampleOptions(**options))
        assert "\n" not in str(caught.value)
    for name, said in (("points.shp", "must end in .gpkg"), ("layer_styles.gpkg", "are reserved")):
        with pytest.raises(GeodinosegError, match=said):
            draw_sample(class_map, tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "empty.tif",
        "nowhere.tif",
        "numbers.tif",
    ]


def test_the_command_draws_as_many_points_as_the_standard_error_needs(tmp_path, class_map):
    path = tmp_path / "points.gpkg"
    arguments = ["sample", str(class_map), "-o", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "400 points to fill in" in result.stdout  # (0.4 / 0.02)^2
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    accuracies = ["--expected-accuracy", "0.9", "--expected-accuracy", "wood=0.5"]
    more = CliRunner().invoke(main, [*arguments, "--overwrite", *accuracies])
    assert more.exit_code == 0, more.output
    assert "400 points" not in more.stdout
    assert CliRunner().invoke(main, [*arguments, "--expected-accuracy", "1.5"]).exit_code == 2


@settings(max_examples=8)
@given(seed=st.integers(0, 1_000))
def test_intervals_of_a_sample_through_all_steps_hold_the_true_area(seed, tmp_path_factory):
    """Three maps in a thousand may miss by more than three standard errors: none of eight does."""
    rng = np.random.default_rng(seed)
    truth = patches(200, 300, seed)
    wrong = rng.random(truth.shape) < 0.15
    mapped = np.where(wrong & (truth != 255), rng.choice([1, 4], truth.shape), truth)
    raster = open_class_raster(write_map(tmp_path_factory.mktemp("m") / "m.tif", mapped))
    strata = count_strata(raster, progress=no_progress)
    points = np.array([150, 150, 20, 0])
    drawn = draw_pixels(strata, points, seed=seed, progress=no_progress)
    from geodinoseg.evaluation.sampling.areas import estimate_areas

    ids = [1, 4, 9]
    counts = [[(truth[tuple(found.T)] == i).sum() for i in ids] for found in drawn[:3]]
    estimates = estimate_areas(counts, strata.areas_m2[:3])
    true_areas = np.array([(truth == i).sum() * 0.35 for i in ids])
    off = np.abs(estimates.areas_m2.value - true_areas)
    assert (off[:2] <= 4.5 * estimates.areas_m2.standard_error[:2]).all()


def test_the_last_json_event_holds_the_design_and_the_estimates(tmp_path, class_map):
    path = tmp_path / "points.gpkg"
    result = CliRunner().invoke(
        main, ["sample", str(class_map), "-o", str(path), "--points", "170", "--json"]
    )
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["outputs"]) == ("done", [str(path)])
    assert last["result"]["points"] == 170
    strata = {entry["name"]: entry for entry in last["result"]["strata"]}
    assert set(strata) == {"water", "wood", "field <&>"}
    assert strata["field <&>"]["pixels"] == 99
    assert sum(entry["points"] for entry in strata.values()) == 170
    names = {entry["class_id"]: name for name, entry in strata.items()}
    fill(path, {number: names[class_id] for number, class_id in map_classes(path).items()})
    result = CliRunner().invoke(main, ["evaluate", str(class_map), "--sample", str(path), "--json"])
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["result"]["sample"]["overall_accuracy"]["value"] == 1.0
    assert last["result"]["sample"]["drawn"] == [entry["points"] for entry in strata.values()]
