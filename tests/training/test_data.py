"""Labels of every kind on their way into a training: through TrainingData, and by the commands."""

import json

import geopandas
import numpy as np
import pytest
import shapely
from chips import write_export
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from rasters import ROTATED, write_raster
from trainings import NAMES, color_channels, color_pixels, quick

from geodinoseg.cli import main
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.options import LabelOptions
from geodinoseg.training.data import read_training_data
from geodinoseg.training.sampler import Sampler
from geodinoseg.training.settings import Augmentation
from geodinoseg.windows import Window

HEIGHT, WIDTH = 150, 187
QUICK = [
    "--stage",
    "head",
    "--no-quantize",
    "--epochs",
    "1",
    "--steps-per-epoch",
    "1",
    "--batch-size",
    "1",
    "--crop",
    "28",
    "--device",
    "cpu",
]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A scene, a file for each class, and the ground where they are complete."""
    folder = tmp_path_factory.mktemp("field")
    channels = color_channels(HEIGHT, WIDTH)
    write_raster(folder / "ortho.tif", color_pixels(channels))
    rng = np.random.default_rng(2)
    for channel, name in enumerate(NAMES):
        corners = np.argwhere(channels[:-12, :-12] == channel)
        cells = [
            shapely.box(c, r, c + 12, r + 12) for r, c in rng.permutation(corners)[:12].tolist()
        ]
        write_cells(folder / f"{name}.gpkg", cells)
    write_cells(folder / "extent.geojson", [shapely.box(0, 0, 90, HEIGHT)], crs=4326)
    return folder


def write_cells(path, cells, *, crs=None, **columns):
    ground = shapely.transform(
        np.array(cells, dtype=object), lambda xy: np.column_stack(ROTATED @ tuple(xy.T))
    )
    frame = geopandas.GeoDataFrame(columns, geometry=list(ground), crs="EPSG:32633")
    (frame if crs is None else frame.to_crs(crs)).to_file(path)
    return path


def class_files(folder):
    return [text for name in NAMES for text in ("--labels", f"{name}={folder / name}.gpkg")]


def model_legend(model):
    return {
        entry["class_id"]: (entry["name"], entry["color"])
        for entry in json.loads((model / "config.json").read_text())["legend"]
    }


@pytest.mark.parametrize("unlabelled", ["ignore", "background"])
@pytest.mark.parametrize("missing_by", ["nodata", "mask"])
def test_no_label_lies_on_nodata_neither_in_crops_nor_in_counts(tmp_path, missing_by, unlabelled):
    channels = color_channels(HEIGHT, WIDTH)
    pixels = color_pixels(channels)
    missing = np.zeros((HEIGHT, WIDTH), bool)
    missing[40:, 90:] = True
    missing[:30, :60] = True
    pixels[:, missing] = 0
    marked = {"nodata": 0} if missing_by == "nodata" else {"mask": ~missing}
    scene = write_raster(tmp_path / "ortho.tif", pixels, **marked)
    # A label raster over the whole scene, unlabelled in a corner: 0 there.
    values = (channels + 1).astype(np.uint8)
    values[:50, 100:] = 0
    labels = write_raster(tmp_path / "labels.tif", values[None], nodata=0)
    settings = quick(crop_px=28)
    data = read_training_data(
        scene, labels, bands=None, options=LabelOptions(unlabelled=unlabelled), settings=settings
    )
    known = ~missing & ((values > 0) | (unlabelled == "background"))
    expected = np.bincount(values[known], minlength=4)[-len(data.legend) :]
    (split,) = data.splits
    assert_array_equal(split.counts.sum(axis=(0, 1)), expected)
    assert data.folds > 1, "so that each pixel both trains and validates"
    for part in ("training", "validation"):
        assert_array_equal(list(data.facts[f"{part}_pixels"].values()), expected)
    with Sampler(data.splits, crop_px=28, augmentation=Augmentation(), seed=0) as sampler:
        crops = sampler.batch(0, 60)
    assert any((~crop.valid).any() for crop in crops), "no crop reaches the nodata"
    for crop in crops:
        assert (crop.labels[~crop.valid] == IGNORE).all()


def test_train_takes_a_file_a_class_an_extent_and_a_legend(field, backbone, tmp_path):
    legend = tmp_path / "legend.csv"
    legend.write_text(
        "id,name,color\n4,roof,#aa0000\n2,Field,#00aa00\n0,background,#010101\n9,x,\n"
    )
    model = tmp_path / "field.model"
    result = run(
        "train",
        field / "ortho.tif",
        *class_files(field),
        "--extent",
        field / "extent.geojson",
        "--legend",
        legend,
        "-o",
        model,
        "--backbone",
        backbone,
        *QUICK,
    )
    assert result.exit_code == 0, result.output
    told = model_legend(model)
    assert told[4] == ("roof", "#aa0000")
    assert told[2] == ("field", "#00aa00")
    assert told[0] == ("background", "#010101")
    assert {name for name, _ in told.values()} == {"background", *NAMES}
    config = (model / "config.json").read_text()
    assert "roof=roof.gpkg" in config
    assert str(field) not in config


def test_train_takes_a_folder_of_class_files_for_several_scenes(field, backbone, tmp_path):
    folder = tmp_path / "classes"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.gpkg").write_bytes((field / f"{name}.gpkg").read_bytes())
    pixels = color_pixels(color_channels(HEIGHT, WIDTH))
    half = write_raster(tmp_path / "half.tif", pixels[:, :100])
    model = tmp_path / "field.model"
    result = run(
        "train",
        field / "ortho.tif",
        half,
        "--labels",
        folder,
        "-o",
        model,
        "--backbone",
        backbone,
        *QUICK,
    )
    assert result.exit_code == 0, result.output
    assert [name for name, _ in model_legend(model).values()] == list(NAMES)


@pytest.mark.slow
def test_train_takes_an_export_of_chips(backbone, tmp_path):
    write_export(tmp_path / "export", count=12)
    model = tmp_path / "chips.model"
    result = run(
        "train",
        tmp_path / "export",
        "-o",
        model,
        "--unlabelled",
        "background",
        "--backbone",
        backbone,
        *QUICK,
    )
    assert result.exit_code == 0, result.output
    assert model_legend(model) == {
        0: ("background", "#d9d9d9"),
        2: ("roof", "#c80a1e"),
        5: ("water", "#0102fe"),
    }


def test_evaluate_takes_a_file_a_class_and_an_extent(field, tmp_path):
    channels = color_channels(HEIGHT, WIDTH)
    path = write_raster(tmp_path / "map.tif", (channels + 1).astype(np.uint8)[None])
    side = {"names": {1: "field", 2: "roof", 3: "water", 0: "background"}}
    tags = [
        {"class_id": i, "name": name, "color": f"#0000{i:02x}"} for i, name in side["names"].items()
    ]
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(GEODINOSEG_LEGEND=json.dumps(tags))
    report = tmp_path / "report.json"
    result = run("evaluate", path, *class_files(field), "-o", report)
    assert result.exit_code == 0, result.output
    right = run("evaluate", path, *class_files(field), "--extent", field / "extent.geojson")
    assert right.exit_code == 0, right.output
    assert "background" in right.stdout
    assert right.stdout != result.stdout


REFUSALS = {
    "class file absent": (["--labels", "tin=absent.gpkg"], "absent.gpkg: no such file"),
    "mixed": (["--labels", "roof=roof.gpkg", "--labels", "water.gpkg"], "holds the class 'roof'"),
    "extent absent": (["--labels", "roof.gpkg", "--extent", "no.gpkg"], "no.gpkg: no such file"),
    "legend broken": (["--labels", "roof.gpkg", "--legend", "bad.csv"], "bad.csv: row 2: 'x'"),
    "label chips for a scene": (["--labels", "chips"], "chips: holds no vector file"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_labels_that_cannot_serve_end_in_one_line(field, tmp_path, monkeypatch, kind):
    options, fault = REFUSALS[kind]
    monkeypatch.chdir(field)
    (field / "bad.csv").write_text("id,name\nx,a\n")
    (field / "chips").mkdir(exist_ok=True)
    result = run("train", "ortho.tif", *options, "-o", tmp_path / "m.model", *QUICK)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert fault in line
    assert not (tmp_path / "m.model").exists()


def test_a_folder_without_chips_ends_in_one_line(tmp_path):
    (tmp_path / "photos").mkdir()
    result = run("train", tmp_path / "photos", "-o", tmp_path / "m.model", *QUICK)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "photos: holds no image chip with its label chip" in line


def test_labels_of_a_window_are_those_whatever_the_scene_misses(tmp_path):
    """Only the counts leave nodata out: a crop does so itself when it is read."""
    scene = write_raster(tmp_path / "ortho.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    values = np.ones((40, 50), np.uint8)
    values[:, 30:] = 2
    labels = write_raster(tmp_path / "labels.tif", values[None])
    from geodinoseg.labels.open import open_labels
    from geodinoseg.rasters.scene import open_scene

    opened = open_scene(scene)
    source = open_labels(labels, opened.geobox).on(opened)
    assert (source.read(Window(col_off=0, row_off=0, width=50, height=40)) == values - 1).all()
    assert not source.class_blocks(20).any()
