"""Reports: what they hold is what was found, any text is text, the same findings the same bytes."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread
from rasters import write_raster
from sampled_maps import fill, map_classes, patches, write_map

from geodinoseg.errors import OutputExistsError
from geodinoseg.evaluation.agreement import Agreement
from geodinoseg.evaluation.evaluate import EvaluationOptions, evaluate_map
from geodinoseg.evaluation.report.figures import _round_step, agreement_colors
from geodinoseg.evaluation.report.page import _without_folders
from geodinoseg.evaluation.report.write import write_report
from geodinoseg.evaluation.sampling.draw import SampleOptions, draw_sample
from geodinoseg.evaluation.sampling.evaluate import evaluate_sample
from geodinoseg.evaluation.sampling.strata import hectares
from geodinoseg.geobox import GeoBox

NAMES = {1: "<b>water</b>", 4: 'wood & "more"', 9: "<script>alert('x')</script>", 30: "Straße"}
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; refuses elements that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A map with names that are markup, by labels with regions and confidence, and by a sample."""
    folder = tmp_path_factory.mktemp("reports")
    pixels = patches(330, 410)
    class_map = write_map(folder / "map & <i>.tif", pixels, NAMES)
    truth = np.where(np.random.default_rng(1).random(pixels.shape) < 0.2, 4, pixels)
    truth[:, ::5] = 255
    labels = write_map(folder / "labels.tif", truth, NAMES)
    percent = np.random.default_rng(2).integers(40, 101, (1, *pixels.shape)).astype(np.uint8)
    confidence = write_raster(folder / "confidence.tif", percent, nodata=255)
    import geopandas
    from rasters import ROTATED
    from shapely.affinity import affine_transform
    from shapely.geometry import box

    a, b, c, d, e, f = ROTATED[:6]
    half = affine_transform(box(0, 0, 200, 330), (a, b, d, e, c, f))
    regions = folder / "regions.gpkg"
    frame = geopandas.GeoDataFrame({"name": ["<u>west</u>"]}, geometry=[half], crs="EPSG:32633")
    frame.to_file(regions)
    options = EvaluationOptions(regions=regions, confidence=confidence)
    by_labels = evaluate_map(class_map, labels, options=options)
    points = folder / "points.gpkg"
    draw_sample(class_map, points, options=SampleOptions(points=170))
    answers = {
        number: NAMES[class_id] if number % 5 else "Straße"
        for number, class_id in map_classes(points).items()
        if number % 9
    }
    fill(points, answers)
    return by_labels, evaluate_sample(class_map, points)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path, found):
    text = write_report(tmp_path / "r.html", *found).read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not {"b", "i", "u"} & set(page.tags)
    links = [value for name, value in page.attributes if name in {"src", "href"}]
    assert len(links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in links)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_names_stand_on_the_page_as_they_are(tmp_path, found):
    page = Page(write_report(tmp_path / "r.html", *found).read_text("utf-8"))
    for name in (*NAMES.values(), "<u>west</u>", "Accuracy of map & <i>.tif"):
        assert name in page.text


def test_the_pages_figures_are_those_that_were_found(tmp_path, found):
    by_labels, by_sample = found
    text = " ".join(Page(write_report(tmp_path / "r.html", *found).read_text("utf-8")).text)
    for value in (by_labels.accuracy.overall, *by_labels.accuracy.iou[:3]):
        assert f"{value:.3f}" in text
    assert f"{by_labels.regions[0].accuracy.pixels:,}" in text
    overall = by_sample.estimates.overall
    assert f"± {float(overall.margin):.3f}" in text
    for areas in by_sample.areas_ha():
        assert all(area in text for area in areas)


def test_pictures_show_the_map_and_where_it_is_wrong(tmp_path, found):
    by_labels, _ = found
    page = Page(write_report(tmp_path / "r.html", by_labels).read_text("utf-8"))
    sources = [value for name, value in page.attributes if name == "src"]
    shown_map, shown_errors = (
        imread(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources
    )
    assert shown_map.shape == (330, 410, 4)
    assert (shown_map[:40, :60, 3] == 0).all()
    wrong = np.rint(shown_errors[..., :3] * 255) == (203, 24, 29)
    assert (wrong.all(axis=2) == (by_labels.agreement.wrong > 0)).all()


def test_small_shares_of_wrong_pixels_still_show_red():
    place = GeoBox(crs=None, transform=None, width=4, height=1)
    agreement = Agreement(
        geobox=place, compared=np.array([[100, 100, 100, 0]]), wrong=np.array([[0, 9, 100, 0]])
    )
    reds = agreement_colors(agreement)[0].astype(int)
    assert reds[0].tolist() == [143, 184, 222]
    assert reds[2].tolist() == [203, 24, 29]
    assert reds[3].tolist() == [240, 242, 244]
    assert (reds[1] == np.rint(0.7 * reds[0] + 0.3 * reds[2])).all()


def test_json_holds_plain_values_and_no_nan(tmp_path, found):
    by_labels, by_sample = found
    path = write_report(tmp_path / "r.json", *found)
    facts = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    assert facts["overall_accuracy"] == by_labels.accuracy.overall
    assert facts["confusion_matrix"] == by_labels.accuracy.matrix.tolist()
    assert [region["name"] for region in facts["regions"]] == ["<u>west</u>"]
    assert sum(facts["reliability"]["pixels"]) == facts["pixels"]
    assert [entry["name"] for entry in facts["classes"]] == list(NAMES.values())
    assert facts["sample"]["counts"] == by_sample.estimates.counts.tolist()
    assert facts["sample"]["users_accuracy"]["value"][3] is None
    area = facts["sample"]["area_m2"]
    assert area["high"][0] - area["low"][0] == pytest.approx(2 * 1.96 * area["standard_error"][0])


def test_the_table_has_a_row_for_each_region_class_and_measure(tmp_path, found):
    by_labels, by_sample = found
    text = write_report(tmp_path / "r.csv", *found).read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    keys = [(r["source"], r["region"], r["class_id"], r["measure"]) for r in rows]
    assert len(set(keys)) == len(keys)
    value = {key: row["value"] for key, row in zip(keys, rows, strict=True)}
    assert float(value["labels", "all", "1", "iou"]) == by_labels.accuracy.iou[0]
    west = by_labels.regions[0]
    assert float(value["labels", "<u>west</u>", "4", "recall"]) == west.accuracy.recall[1]
    assert value["labels", "all", "30", "iou"] == ""
    area = by_sample.estimates.areas_m2
    row = rows[keys.index(("sample", "all", "9", "area"))]
    assert float(row["value"]) == area.value[2]
    assert float(row["high"]) == pytest.approx(area.value[2] + area.margin[2])
    assert {row["class"] for row in rows} == {*NAMES.values(), ""}


@pytest.mark.parametrize("suffix", [".html", ".json", ".csv"])
def test_the_same_findings_give_the_same_bytes(tmp_path, found, suffix):
    first, second = (write_report(tmp_path / f"{name}{suffix}", *found) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(OutputExistsError):
        write_report(first, *found)
    write_report(first, *found, overwrite=True)
    for part in ((found[0], None), (None, found[1])):
        write_report(first, *part, overwrite=True)
        assert 0 < first.stat().st_size < second.stat().st_size


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs an evaluation"):
        write_report(tmp_path / "r.html", None)


def test_areas_are_shown_with_four_digits_of_the_largest():
    assert hectares([2_115_776_223, 1e4]) == ["211,578", "1"]
    assert hectares([24_930.0, 15_210.4, math.nan]) == ["2.493", "1.521", "-"]
    assert hectares([0.0]) == ["0.000"]
    assert hectares([150.0]) == ["0.01500"]


@pytest.mark.parametrize(("least", "step"), [(0.7, 1), (1.0, 1), (1.1, 2), (30, 50), (51, 100)])
def test_axes_go_in_round_steps(least, step):
    assert _round_step(least) == pytest.approx(step)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("/data/check.gpkg|layername=a", "check.gpkg"),
        ("wood=/d/a.gpkg, water=b.shp, ...", "wood=a.gpkg, water=b.shp, ..."),
    ],
)
def test_labels_are_named_without_the_folders_of_this_machine(labels, said):
    assert _without_folders(labels) == said
