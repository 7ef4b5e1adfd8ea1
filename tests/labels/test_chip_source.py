"""Folders of image and label chips: paired by name, taken pixel for pixel, one legend for all."""

import pickle

import numpy as np
import pytest
from affine import Affine
from chips import CLASSES, HEIGHT, WIDTH, image, values, write_chips, write_export
from numpy.testing import assert_array_equal
from rasters import write_raster

from geodinoseg.errors import GeodinosegError, LabelError
from geodinoseg.labels.chip_folder import find_chips
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.options import LabelOptions
from geodinoseg.training.scenes import open_labelled_scenes
from geodinoseg.windows import Window


def opened(scenes, labels=None, **options):
    return open_labelled_scenes(
        scenes, labels, bands=None, nodata=None, options=LabelOptions(**options)
    )


def whole(labels):
    return labels.read(Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT))


def test_an_export_gives_its_classes_and_leaves_0_unknown(tmp_path):
    chips = write_export(tmp_path / "export")
    scenes, labels, names = opened(tmp_path / "export")
    assert names == ["export"]
    assert len(scenes) == len(labels) == 3
    legend = labels[0].legend
    assert [(e.class_id, e.name, e.color) for e in legend] == [
        (2, "roof", "#c80a1e"),
        (5, "water", "#0102fe"),
    ]
    for chip, source in zip(chips, labels, strict=True):
        assert source.legend == legend
        assert_array_equal(whole(source), np.select([chip == 2, chip == 5], [0, 1], IGNORE))


def test_0_of_an_export_is_background_where_that_is_asked_for(tmp_path):
    chips = write_export(tmp_path / "export")
    _, labels, _ = opened(str(tmp_path / "export"), unlabelled="background")
    assert labels[0].legend.names == ("background", "roof", "water")
    for chip, source in zip(chips, labels, strict=True):
        assert_array_equal(whole(source), np.select([chip == 2, chip == 5], [1, 2], 0))
        counts = source.class_blocks(10).sum(axis=(0, 1))
        assert_array_equal(counts, [(chip == value).sum() for value in (0, 2, 5)])


def test_0_is_a_class_where_the_export_lists_it(tmp_path):
    classes = [{"ClassValue": 0, "ClassName": "bare"}, *CLASSES]
    write_export(tmp_path, emd={"Classes": classes})
    _, labels, _ = opened(tmp_path)
    # The keys of ArcGIS before 2.4.
    assert labels[0].legend.names == ("bare", "roof", "water")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize(
    ("homes", "end"),
    [
        (("images", "labels"), ""),
        (("Images", "masks"), "_mask"),
        ((".", "annotations"), ""),
        ((".", "."), "_mask"),
        ((".", "."), "_label"),
    ],
)
def test_plain_pairs_are_found_and_0_is_a_number_like_others(tmp_path, suffix, homes, end):
    chips = write_chips(tmp_path, suffix=suffix, homes=homes, end=end, count=2)
    scenes, labels, _ = opened([tmp_path])
    assert [len(scene.bands) for scene in scenes] == [3, 3]
    assert labels[0].legend.names == ("class 0", "class 2", "class 5")
    for chip, source in zip(chips, labels, strict=True):
        assert_array_equal(whole(source), np.select([chip == 0, chip == 2, chip == 5], [0, 1, 2]))


def test_labels_may_lie_in_a_folder_of_their_own_and_the_export_above_is_known(tmp_path):
    chips = write_export(tmp_path)
    _, labels, _ = opened([str(tmp_path / "images")], [str(tmp_path / "labels")])
    assert labels[0].legend.names == ("roof", "water")
    assert_array_equal(whole(labels[2]) == 0, chips[2] == 2)


def test_several_folders_share_a_legend(tmp_path):
    write_chips(tmp_path / "a", count=2, choices=(1, 2))
    write_chips(tmp_path / "b", count=2, choices=(2, 7))
    scenes, labels, names = opened([tmp_path / "a", tmp_path / "b"])
    assert len(scenes) == 4
    assert {source.legend.names for source in labels} == {("class 1", "class 2", "class 7")}
    assert names == ["a, b"]


def test_a_pair_is_taken_pixel_for_pixel_whatever_its_place(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    chip = values(4)
    write_raster(tmp_path / "images" / "a.tif", image(1))
    elsewhere = Affine.translation(9e5, 1e6) @ Affine.scale(30, -30)
    write_raster(tmp_path / "masks" / "a.tif", chip[None], transform=elsewhere, nodata=0)
    _, (labels,), _ = opened(tmp_path)
    assert_array_equal(whole(labels), np.select([chip == 2, chip == 5], [0, 1], IGNORE))


def test_a_colour_table_colours_the_classes_of_plain_pairs(tmp_path):
    import rasterio

    write_chips(tmp_path, count=2)
    with rasterio.open(tmp_path / "labels" / f"{0:09d}.tif", "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 1, 1), 2: (2, 2, 2), 5: (3, 3, 3)})
    _, labels, _ = opened(tmp_path)
    assert [entry.color for entry in labels[0].legend] == ["#010101", "#020202", "#030303"]
    legend = tmp_path / "legend.txt"
    legend.write_text("2 roof #0a0b0c\n")
    _, labels, _ = opened(tmp_path, legend_file=str(legend), ignore_classes=("0",))
    assert [(e.name, e.color) for e in labels[0].legend] == [
        ("roof", "#0a0b0c"),
        ("class 5", "#030303"),
    ]


def test_what_has_no_partner_or_no_label_is_left_out_and_counted(tmp_path, caplog):
    write_chips(tmp_path, count=4)
    (tmp_path / "labels" / f"{1:09d}.tif").rename(tmp_path / "labels" / "other.tif")
    (tmp_path / "esri_accumulated_stats.json").write_text("{}")
    empty = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    write_raster(tmp_path / "labels" / f"{3:09d}.tif", empty)
    scenes, _, _ = opened(tmp_path)
    assert [scene.path[-5:] for scene in scenes] == ["0.tif", "2.tif"]
    assert "left out 1 image chips without a label chip and 1 label chips without" in caplog.text
    assert "left out 1 chips without a label" in caplog.text
    assert len(opened(tmp_path, unlabelled="background")[0]) == 3


def test_labels_of_chips_survive_the_way_to_another_process_without_their_files(tmp_path):
    (chip,) = write_chips(tmp_path, count=1)
    _, (labels,), _ = opened(tmp_path)
    (tmp_path / "labels" / f"{0:09d}.tif").unlink()
    copy = pickle.loads(pickle.dumps(labels))
    assert_array_equal(whole(copy), np.select([chip == 0, chip == 2, chip == 5], [0, 1, 2]))


def test_each_label_chip_is_opened_once(tmp_path, monkeypatch):
    from geodinoseg.labels import chip_source as chip_labels

    write_chips(tmp_path, count=5)
    seen = []
    original = chip_labels.open_dataset
    monkeypatch.setattr(
        chip_labels,
        "open_dataset",
        lambda path, **options: (seen.append(path), original(path, **options))[1],
    )
    _, labels, _ = opened(tmp_path)
    for source in labels:
        source.class_blocks(20)
        whole(source)
    # The first once more, for its colour table.
    assert len(seen) == 6


def spoil_label(root, values, **options):
    write_raster(root / "labels" / f"{1:09d}.tif", values, **options)


SPOILT = {
    "size": (lambda r: spoil_label(r, values(1)[None, :-1]), "has 53 x 36 px, its image"),
    "bands": (lambda r: spoil_label(r, image(1)), "has 3 bands, but a label chip has one"),
    "fractions": (lambda r: spoil_label(r, values(1)[None] + 0.5), "class ids are integers"),
    "negative": (
        lambda r: spoil_label(r, values(1)[None].astype(np.int16) - 3),
        "holds the value -",
    ),
    "beyond": (
        lambda r: spoil_label(r, values(1)[None].astype(np.int32) + 65_533),
        "holds the value 655",
    ),
    "mixed bands": (
        lambda r: write_raster(r / "images" / f"{1:09d}.tif", image(1)[:2]),
        "has 2 bands of uint8",
    ),
    "cut short": (
        lambda r: (r / "labels" / f"{1:09d}.tif").write_bytes(b"II*\0"),
        f"{1:09d}.tif: ",
    ),
    "half": (
        lambda r: (p := r / "labels" / f"{1:09d}.tif").write_bytes(p.read_bytes()[:500]),
        f"{1:09d}.tif: ",
    ),
    "broken emd": (
        lambda r: (r / "esri_model_definition.emd").write_text('{"Classes": ['),
        "esri_model_definition.emd: is not a JSON object",
    ),
    "emd of a list": (
        lambda r: (r / "esri_model_definition.emd").write_text("[1]"),
        "esri_model_definition.emd: is not a JSON object, as",
    ),
    "emd without numbers": (
        lambda r: (r / "esri_model_definition.emd").write_text('{"Classes": [{"Value": "x"}]}'),
        "entry 1: 'x' is not a class id",
    ),
    "boxes": (
        lambda r: (r / "esri_model_definition.emd").write_text(
            '{"MetaDataMode": "PASCAL_VOC_rectangles"}'
        ),
        "is of the format PASCAL_VOC_rectangles",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_chips_that_cannot_serve_are_refused_in_one_line(tmp_path, kind):
    write_chips(tmp_path)
    spoil, fault = SPOILT[kind]
    spoil(tmp_path)
    with pytest.raises(GeodinosegError) as caught:
        opened(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_without_chips_are_refused_in_one_line(tmp_path):
    with pytest.raises(LabelError, match="holds no image chip with its label chip"):
        opened(tmp_path)
    write_chips(tmp_path / "chips", count=1)
    with pytest.raises(LabelError, match="absent are not a folder of label chips"):
        opened([str(tmp_path / "chips" / "images")], [str(tmp_path / "absent")])
    with pytest.raises(LabelError, match="2 folders of label chips for 1"):
        opened([tmp_path / "chips"], ["a", "b"])
    with pytest.raises(LabelError, match="is a folder of chips, and other scenes are files"):
        opened([tmp_path / "chips", tmp_path / "chips" / "images" / f"{0:09d}.tif"], "l.gpkg")
    with pytest.raises(LabelError, match="no labels were given"):
        opened([tmp_path / "chips" / "images" / f"{0:09d}.tif"])
    for path in (tmp_path / "chips" / "labels").iterdir():
        path.unlink()
    (tmp_path / "chips" / "labels" / "a.xml").write_text("<annotation/>")
    with pytest.raises(LabelError, match="holds bounding boxes of objects"):
        opened(tmp_path / "chips")


def test_an_export_of_one_class_says_how_to_go_on(tmp_path):
    write_export(tmp_path, choices=(0, 2))
    with pytest.raises(LabelError, match=r"has one class only, 'roof'.*--unlabelled background"):
        opened(tmp_path)
    assert opened(tmp_path, unlabelled="background")[1][0].legend.names == ("background", "roof")


def test_the_list_of_an_export_pairs_chips_of_other_names(tmp_path):
    chips = write_chips(tmp_path, count=2)
    (tmp_path / "labels" / f"{0:09d}.tif").rename(tmp_path / "labels" / "zero.tif")
    lines = [f"images/{0:09d}.tif\tlabels/zero.tif", f"images/{1:09d}.tif\tlabels/{1:09d}.tif"]
    (tmp_path / "map.txt").write_text("\n".join(lines))
    pairs = find_chips(str(tmp_path)).pairs
    assert [label.rsplit("/", 1)[1] for _, label in pairs] == ["zero.tif", f"{1:09d}.tif"]
    _, labels, _ = opened(tmp_path)
    assert_array_equal(whole(labels[0]) == 0, chips[0] == 2)
