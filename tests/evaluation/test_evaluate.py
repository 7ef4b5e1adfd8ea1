"""Maps against labels, with scikit-learn as the oracle."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_array_equal
from rasters import ROTATED, IdentityModel, write_raster
from sampled_maps import write_map
from shapely.affinity import affine_transform
from shapely.geometry import box
from sklearn.metrics import confusion_matrix as sklearn_confusion

from geodinoseg.cli import main
from geodinoseg.errors import LabelError, SceneError
from geodinoseg.evaluation import training_labels
from geodinoseg.evaluation.boundaries import Tolerance, reach_of
from geodinoseg.evaluation.compare import compare
from geodinoseg.evaluation.evaluate import EvaluationOptions, evaluate_map
from geodinoseg.evaluation.regions import read_regions
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.paths import label_files, recorded_name
from geodinoseg.legend import Legend
from geodinoseg.progress import no_progress
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

HEIGHT, WIDTH = 61, 83
IDS = np.array([3, 40, 7])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    pixels = np.random.default_rng(2).integers(0, 3, (1, HEIGHT, WIDTH)).astype(np.uint8)
    pixels[0, 30:, 40:] = 1
    pixels[0, :9, :20] = 99
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def class_map(folder, pixels):
    """A map of classes 3, 40 and 7, in that order of channels, with nodata in a corner."""
    model = IdentityModel(classes=3)
    legend = Legend.of_names({3: "water", 7: "wood", 40: "field"})
    by_id = legend.by_id()
    model.legend = Legend(tuple(by_id[int(i)] for i in IDS))
    scene = write_raster(folder / "s.tif", pixels, nodata=99)
    choices = SegmentationSettings(tile_px=32)
    return segment_scene(
        scene, model, folder / "map.tif", settings=choices, confidence=folder / "confidence.tif"
    ).path


BOXES = [(0, 0, 30, 25), (30, 10, 60, 50), (70, 30, 83, 61)]


def write_polygons(path, boxes, names, field="class"):
    """Boxes in pixels, (col, row, col, row), as polygons in the map's CRS."""
    a, b, c, d, e, f = ROTATED[:6]
    shapes = [affine_transform(box(*corners), (a, b, d, e, c, f)) for corners in boxes]
    frame = geopandas.GeoDataFrame({field: names}, geometry=shapes, crs="EPSG:32633")
    frame.to_file(path)
    return path


@pytest.fixture(scope="module")
def labels(folder):
    return write_polygons(folder / "labels.gpkg", BOXES, ["wood", "water", "field"])


def reference_channels():
    reference = np.full((HEIGHT, WIDTH), -1)
    for (left, top, right, bottom), channel in zip(BOXES, (2, 0, 1), strict=True):
        reference[top:bottom, left:right] = channel
    return reference


def matrix_by_hand(pixels, inside=None):
    reference = reference_channels()
    counts = (reference >= 0) & (pixels[0] != 99)
    if inside is not None:
        counts &= inside
    return sklearn_confusion(reference[counts], pixels[0][counts], labels=[0, 1, 2])


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_matrix_is_that_of_scikit_learn(class_map, labels, pixels):
    found = evaluate_map(class_map, labels)
    assert found.legend.names == ("water", "field", "wood")
    assert_array_equal(found.accuracy.matrix, matrix_by_hand(pixels))


def test_a_table_is_compared_as_a_file_with_its_rows(class_map, labels, tmp_path):
    frame = geopandas.read_file(labels)
    regions = frame.rename(columns={"class": "region"}).to_crs(4326)
    regions.to_file(tmp_path / "regions.gpkg")
    found, of_files = (
        evaluate_map(class_map, reference, options=EvaluationOptions(regions=areas))
        for reference, areas in ((frame, regions), (labels, tmp_path / "regions.gpkg"))
    )
    assert_array_equal(found.accuracy.matrix, of_files.accuracy.matrix)
    assert found.table() == of_files.table()
    assert found.labels == "labels (GeoDataFrame)"


def test_the_very_table_of_the_training_is_recognized(class_map, labels, monkeypatch, caplog):
    frame = geopandas.read_file(labels)
    (recorded,) = map(recorded_name, label_files([frame]))
    config = {"training": {"labels": [recorded]}}
    monkeypatch.setattr(training_labels, "_model_folder", lambda _: "crops.model")
    monkeypatch.setattr(training_labels, "read_model_config", lambda _: config)
    evaluate_map(class_map, frame.iloc[:2])
    assert "was trained on" not in caplog.text
    evaluate_map(class_map, frame.copy())
    assert "labels (GeoDataFrame): " in caplog.text
    assert f"was trained on a file of the same name ({recorded})" in caplog.text


def test_a_map_against_itself_is_right_to_its_borders(class_map):
    found = evaluate_map(class_map, class_map, options=EvaluationOptions(boundary_tolerance_px=0.0))
    assert found.accuracy.overall == found.accuracy.mean_iou == 1.0
    assert found.boundary.mean_f_score == 1.0
    assert not found.agreement.wrong.any()


def test_each_region_has_its_own_pixels_and_those_in_none_count_for_the_whole_alone(
    folder, class_map, labels, pixels
):
    """Regions overlap, one has two parts, one lies elsewhere, in degrees."""
    corners = [(0, 0, 40, 61), (20, 0, 50, 61), (60, 31, 83, 61), (900, 900, 999, 999)]
    path = write_polygons(folder / "regions.gpkg", corners, ["a", "b", "a", "far"], field="Zone")
    degrees = folder / "degrees.geojson"
    geopandas.read_file(path).to_crs(4326).to_file(degrees)
    options = EvaluationOptions(regions=degrees, region_field="zone")
    found = evaluate_map(class_map, labels, options=options)
    assert [region.name for region in found.regions] == ["a", "b"]
    inside = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    inside[0, :, :40] = inside[1, :, 20:50] = inside[0, 31:, 60:] = True
    for region, mask in zip(found.regions, inside, strict=True):
        assert_array_equal(region.accuracy.matrix, matrix_by_hand(pixels, mask))
        assert 0 < region.boundary.mapped.sum() < found.boundary.mapped.sum()
        assert region.reliability.count.sum() == region.accuracy.pixels
    assert_array_equal(found.accuracy.matrix, matrix_by_hand(pixels))


@settings(max_examples=12)
@given(rows=st.integers(9, 70), cols=st.integers(7, 90), distance=st.sampled_from([0, 1.5, 5]))
def test_the_result_is_the_same_in_windows_of_any_size(
    rows, cols, distance, folder, class_map, labels
):
    raster = open_class_raster(class_map)
    path = folder / "window_regions.gpkg"
    if not path.exists():
        write_polygons(path, [(5, 5, 50, 40), (30, 20, 83, 61)], ["a", "b"], field="name")
    parts = {
        "labels": open_labels(labels, raster.geobox, legend=raster.legend),
        "reach": reach_of(Tolerance(distance=distance, unit="px"), raster.geobox),
        "regions": read_regions(str(path), raster.geobox, field=None),
        "progress": no_progress,
    }
    whole = compare(raster, **parts)
    cut = compare(raster, **parts, window_px=(rows, cols))
    for one, other in zip((whole.whole, *whole.regions), (cut.whole, *cut.regions), strict=True):
        assert_array_equal(one.accuracy.matrix, other.accuracy.matrix)
        for side in ("reference", "reference_matched", "mapped", "mapped_matched"):
            assert_array_equal(getattr(one.boundary, side), getattr(other.boundary, side))
        assert_array_equal(one.reliability.count, other.reliability.count)
        assert_array_equal(one.reliability.accuracy, other.reliability.accuracy)
    assert_array_equal(whole.agreement.wrong, cut.agreement.wrong)
    assert_array_equal(whole.agreement.compared, cut.agreement.compared)


def test_the_picture_of_a_larger_map_holds_every_wrong_pixel_once(tmp_path):
    rng = np.random.default_rng(5)
    reference, mapped = rng.integers(1, 3, (2, 1, 301, 1_801)).astype(np.uint8)
    paths = [
        write_raster(tmp_path / name, side, nodata=0, tiled=True)
        for name, side in (("r.tif", reference), ("m.tif", mapped))
    ]
    found = evaluate_map(paths[1], paths[0])
    assert found.agreement.wrong.shape == (120, 720)
    assert found.agreement.compared.sum() == 301 * 1_801
    assert found.agreement.wrong.sum() == (reference != mapped).sum()


def test_reliability_counts_the_confidence_of_compared_pixels(folder, class_map, labels, pixels):
    percent = np.random.default_rng(3).integers(34, 101, (1, HEIGHT, WIDTH)).astype(np.uint8)
    percent[0, ::7] = 255
    path = write_raster(folder / "other_confidence.tif", percent, nodata=255)
    found = evaluate_map(class_map, labels, options=EvaluationOptions(confidence=path))
    reference = reference_channels()
    counted = (reference >= 0) & (pixels[0] != 99) & (percent[0] <= 100)
    right = reference == pixels[0]
    reliability = found.reliability
    error = 0.0
    for index in range(10):
        here = counted & ((percent[0] // 10).clip(max=9) == index)
        assert reliability.count[index] == here.sum()
        if here.any():
            assert reliability.accuracy[index] == pytest.approx(right[here].mean())
            gap = abs(right[here].mean() - percent[0][here].mean() / 100)
            error += gap * here.sum() / counted.sum()
    assert reliability.ece == pytest.approx(error)


def test_the_command_prints_a_table_and_writes_every_report(tmp_path, class_map, labels):
    outputs = [tmp_path / f"accuracy{suffix}" for suffix in (".json", ".csv", ".html")]
    arguments = ["evaluate", class_map, "--labels", labels]
    arguments += [word for output in outputs for word in ("-o", output)]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "overall accuracy" in result.stdout
    assert "within 3 px" in result.stdout
    facts = json.loads(outputs[0].read_text())
    assert [c["name"] for c in facts["classes"]] == ["water", "field", "wood"]
    assert len(facts["iou"]) == 3
    again = run(*arguments)
    assert again.exit_code == 1
    assert "exists already" in again.stderr


def one_line_error(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return errors[0]


def test_bad_input_ends_in_a_line_and_leaves_no_report(tmp_path, folder, class_map, labels):
    far = write_polygons(tmp_path / "far.gpkg", [(900, 900, 950, 950)], ["wood"])
    unnamed = write_polygons(tmp_path / "unnamed.gpkg", [(0, 0, 9, 9)], ["x"], field="kind")
    small = write_raster(tmp_path / "small.tif", np.ones((1, 5, 6), np.uint8))
    elsewhere = write_raster(tmp_path / "e.tif", np.full((1, 5, 6), 3, np.uint8), crs="EPSG:32650")
    empty = tmp_path / "empty.gpkg"
    empty.write_bytes(b"")
    float_map = write_raster(tmp_path / "f.tif", np.full((1, 5, 6), 0.5, np.float32))
    output = tmp_path / "report.html"
    for arguments, said in (
        (["--labels", far], "lies outside the scene"),
        (["--labels", empty], "the file is empty"),
        (["--labels", tmp_path / "none.gpkg"], "no such file"),
        (["--labels", labels, "--class-field", "crop"], "has no column 'crop'"),
        (["--labels", elsewhere], "lies outside the scene"),
        (["--labels", labels, "--regions", unnamed], "name the column of the regions' names"),
        (["--labels", labels, "--regions", labels, "--region-field", "zone"], "'zone'"),
        (["--labels", labels, "--regions", far, "--region-field", "class"], "reaches the map"),
        (["--labels", labels, "--confidence", small], "has another grid"),
        (["--labels", labels, "--confidence", tmp_path / "n.tif"], "no such file"),
        (["--labels", labels, "--boundary-tolerance", "2000"], "more than 100"),
        (["--sample", labels], "is not a sample drawn by geodinoseg"),
    ):
        assert said in one_line_error("evaluate", class_map, *arguments, "-o", output)
    assert "class ids are integers" in one_line_error("evaluate", float_map, "--labels", labels)
    assert "must end in" in one_line_error(
        "evaluate", class_map, "--labels", labels, "-o", tmp_path / "report.pdf"
    )
    assert "cannot be one file" in one_line_error(
        "evaluate", class_map, "--labels", labels, "-o", output, "-o", output
    )
    assert run("evaluate", class_map).exit_code == 2
    assert not output.exists()
    assert not list(tmp_path.glob(".geodinoseg-*"))


def test_one_file_a_class_and_an_extent_say_the_same_as_one_file(
    tmp_path, class_map, labels, pixels
):
    files = [
        f"{name}={write_polygons(tmp_path / f'{name}.gpkg', [corners], ['x'])}"
        for name, corners in zip(["wood", "water", "field"], BOXES, strict=True)
    ]
    arguments = [word for file in files for word in ("--labels", file)]
    output = tmp_path / "r.json"
    result = run("evaluate", class_map, *arguments, "-o", output)
    assert result.exit_code == 0, result.output
    facts = json.loads(output.read_text())
    assert facts["confusion_matrix"] == matrix_by_hand(pixels).tolist()


def test_labels_over_nodata_alone_are_refused(tmp_path, class_map):
    labels = write_polygons(tmp_path / "l.gpkg", [(0, 0, 10, 8), (10, 0, 20, 8)], ["wood", "water"])
    with pytest.raises(LabelError, match=r"l\.gpkg: no labelled pixel lies where"):
        evaluate_map(class_map, labels)


def test_a_confidence_of_another_type_is_refused(tmp_path, class_map, labels):
    shape = (1, HEIGHT, WIDTH)
    wide = write_raster(tmp_path / "wide.tif", np.ones(shape, np.uint16))
    bytes_ = write_raster(tmp_path / "bytes.tif", np.full(shape, 200, np.uint8))
    for path, said in (
        (wide, "is not the confidence of .*: it has pixels of type uint16"),
        (class_map, "holds classes, not the confidence"),
        (bytes_, "holds the value 200; confidence is 0 to 100"),
    ):
        with pytest.raises(SceneError, match=said):
            evaluate_map(class_map, labels, options=EvaluationOptions(confidence=path))


def test_means_are_those_of_the_classes_in_the_labels_and_others_are_listed_apart(
    tmp_path, class_map, pixels
):
    labels = write_polygons(tmp_path / "l.gpkg", BOXES[:2], ["wood", "water"])
    outputs = [tmp_path / "r.json", tmp_path / "r.html"]
    result = run("evaluate", class_map, "--labels", labels, "-o", outputs[0], "-o", outputs[1])
    assert result.exit_code == 0, result.output
    facts = json.loads(outputs[0].read_text())
    index = {entry["name"]: i for i, entry in enumerate(facts["classes"])}
    assert facts["mean_iou_classes"] == ["water", "wood"]
    means = [facts["iou"][index[name]] for name in facts["mean_iou_classes"]]
    assert facts["mean_iou"] == pytest.approx(np.mean(means))
    strays = np.array(facts["confusion_matrix"])[:, index["field"]].sum()
    assert facts["not_in_labels"] == {"field": strays}
    assert f"not in the labels: field ({strays:,} px in the map)" in result.stdout
    assert f"Not in the labels: field ({strays:,} px in the map)" in outputs[1].read_text()
    lines = [line.split()[0] for line in result.stdout.splitlines()]
    assert "field" not in lines


def test_the_last_json_event_holds_what_the_json_report_holds(tmp_path, class_map, labels):
    output = tmp_path / "r.json"
    result = run("evaluate", class_map, "--labels", labels, "-o", output, "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["outputs"]) == ("done", [str(output)])
    assert last["result"] == json.loads(output.read_text())


def test_labels_of_the_training_are_said(tmp_path, caplog, monkeypatch):
    pixels = np.full((HEIGHT, WIDTH), 1)
    (tmp_path / "maps").mkdir()
    class_map = write_map(tmp_path / "maps" / "map.tif", pixels)
    with rasterio.open(class_map, "r+") as dataset:
        dataset.update_tags(GEODINOSEG_MODEL="quarry.model")
    check = write_polygons(tmp_path / "check.gpkg", BOXES[:1], ["water"])
    roofs = write_polygons(tmp_path / "roofs.gpkg", BOXES[:1], ["x"])
    model = tmp_path / "quarry.model"
    model.mkdir()
    (model / "config.json").write_text('{"format": "geodinoseg-model"}')
    config = {"training": {"labels": ["drawn.gpkg", "water=roofs.gpkg, wood=wood.gpkg"]}}
    monkeypatch.setattr(training_labels, "read_model_config", lambda _: config)
    evaluate_map(class_map, check)
    assert "trained" not in caplog.text
    evaluate_map(class_map, [f"water={roofs}"])
    assert f"was made with {model}, which was trained on a file of the same name (roofs.gpkg)" in (
        caplog.text
    )
    caplog.clear()
    (model / "config.json").write_text("[]")
    evaluate_map(class_map, [f"water={roofs}"])
    assert "trained" not in caplog.text


def test_labels_are_renamed_to_the_classes_of_the_map(tmp_path, class_map, labels):
    other = write_polygons(tmp_path / "l.gpkg", BOXES, ["forest", "lake", "field"])
    assert "class 'forest' is not a class of the map" in one_line_error(
        "evaluate", class_map, "--labels", other
    )
    renames = ["--rename", "forest=wood", "--rename", "lake=water"]
    results = [
        run("evaluate", class_map, "--labels", other, *renames, "--json"),
        run("evaluate", class_map, "--labels", labels, "--json"),
    ]
    one, two = (json.loads(r.stdout.splitlines()[-1])["result"] for r in results)
    assert one["confusion_matrix"] == two["confusion_matrix"]
    assert run("evaluate", class_map, "--labels", other, "--rename", "forest").exit_code == 2
