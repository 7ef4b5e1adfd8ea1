"""Bad input, through the command line: one clear line, exit code 1, nothing new and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from rasters import ROTATED, read_raster, write_raster
from trainings import NAMES, color_channels, color_pixels, write_squares

from geodinoseg.cli import main

HEIGHT, WIDTH = 150, 190
WAYS_OUT = (
    "give",
    "copy",
    "check",
    "choose",
    "draw",
    "label",
    "set ",
    "reproject",
    "export",
    "compute",
    "expand",
    "train",
    "remove",
    "say",
    "make",
    "correct",
    "download",
    "use ",
    "must end",
    "its columns are",
    "no such",
    "is a folder that holds",
)
QUICK = (
    "--stage",
    "head",
    "--no-quantize",
    "--epochs",
    1,
    "--steps-per-epoch",
    1,
    "--batch-size",
    1,
    "--crop",
    28,
    "--device",
    "cpu",
)


@dataclass
class Bench:
    """A folder with a good scene, good labels and a good model, to be spoilt."""

    folder: Path
    scene: Path
    labels: Path
    model: Path
    backbone: Path

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def raster(self, name: str, pixels: np.ndarray, **profile: object) -> Path:
        return write_raster(self.folder / name, pixels, **profile)

    def table(self, name: str, geometries: list, crs="EPSG:32633", **columns: list) -> Path:
        """A GeoPackage of geometries in pixel coordinates of the scene."""
        placed = [
            None if g is None else shapely.affinity.affine_transform(g, ROTATED.to_shapely())
            for g in geometries
        ]
        columns = columns or {"class": [NAMES[i % 3] for i in range(len(placed))]}
        path = self.folder / name
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            geopandas.GeoDataFrame(columns, geometry=placed, crs=crs).to_file(path)
        return path

    def spoilt_model(self, spoil: Callable[[Path], None], name: str = "spoilt.model") -> Path:
        folder = shutil.copytree(self.model, self.folder / name)
        spoil(folder)
        return folder


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    channels = color_channels(HEIGHT, WIDTH)
    scene = write_raster(
        folder / "ortho.tif", color_pixels(channels), compress="deflate", blockysize=16
    )
    return scene, write_squares(folder / "fields.gpkg", channels, count=40)


@pytest.fixture
def bench(good, small_model, backbone, tmp_path):
    scene, labels = (shutil.copy(path, tmp_path) for path in good)
    return Bench(
        folder=tmp_path,
        scene=Path(scene),
        labels=Path(labels),
        model=small_model,
        backbone=backbone,
    )


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(folder):
    """Every file below a folder with its bytes, and every folder."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def check_refusal(result, named, *, leaves):
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert str(named) in lines[0]
    assert lines[0].endswith((".", ".)"))
    assert any(way in lines[0].lower() for way in WAYS_OUT), lines[0]
    folder, before = leaves
    assert contents(folder) == before


def segment_refuses(bench, named, *, scene=None, model=None, output=None, more=()):
    """Without a map there, and with an old one that might be replaced."""
    target = output or bench.folder / "map.tif"
    arguments = [
        "segment",
        scene or bench.scene,
        "--model",
        model or bench.model,
        "-o",
        target,
        "--device",
        "cpu",
        *more,
    ]
    before = contents(bench.folder)
    check_refusal(run(*arguments), named, leaves=(bench.folder, before))
    if output is None:
        target.write_text("an older map")
        before = contents(bench.folder)
        check_refusal(run(*arguments, "--overwrite"), named, leaves=(bench.folder, before))


def train_refuses(bench, named, *, scene=None, labels=None, more=()):
    """Without a model there, and with an old one that might be replaced."""
    target = bench.folder / "new.model"
    arguments = [
        "train",
        scene or bench.scene,
        "--labels",
        labels or bench.labels,
        "-o",
        target,
        "--backbone",
        bench.backbone,
        *QUICK,
        *(more or ("--class-field", "class")),
    ]
    before = contents(bench.folder)
    check_refusal(run(*arguments), named, leaves=(bench.folder, before))
    shutil.copytree(bench.model, target)
    before = contents(bench.folder)
    check_refusal(run(*arguments, "--overwrite"), named, leaves=(bench.folder, before))


def cut_short(bench, length):
    whole = bench.scene.read_bytes()
    keep = round(length * len(whole)) if isinstance(length, float) else length
    return bench.file("cut.tif", whole[:keep])


def with_palette(bench):
    path = bench.raster("palette.tif", np.ones((1, 9, 7), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0)})
    return path


BAD_SCENES = {
    "missing": lambda b: b.folder / "absent.tif",
    "empty": lambda b: b.file("empty.tif", b""),
    "text": lambda b: b.file("notes.tif", b"these are notes, not pixels\n" * 40),
    "vector": lambda b: b.labels,
    "folder": lambda b: b.folder,
    "cut after 3 bytes": lambda b: cut_short(b, 3),
    "cut after 9 bytes": lambda b: cut_short(b, 9),
    "cut after 200 bytes": lambda b: cut_short(b, 200),
    "cut after 60%": lambda b: cut_short(b, 0.6),
    "cut after 95%": lambda b: cut_short(b, 0.95),
    "one band": lambda b: b.raster("grey.tif", np.ones((1, 40, 30), np.uint8)),
    "complex": lambda b: b.raster("radar.tif", np.ones((3, 40, 30), np.complex64)),
    "palette": with_palette,
    "another resolution": lambda b: b.raster(
        "far.tif", np.ones((3, 40, 30), np.uint8), transform=ROTATED @ ROTATED.scale(40)
    ),
}


@pytest.mark.parametrize("kind", BAD_SCENES)
def test_a_bad_scene_is_refused(kind, bench):
    scene = BAD_SCENES[kind](bench)
    segment_refuses(bench, scene, scene=scene)


@pytest.mark.parametrize("byte", range(8))
def test_a_flipped_bit_in_the_header_is_refused_or_does_no_harm(byte, bench):
    damaged = bytearray(bench.scene.read_bytes())
    damaged[byte] ^= 0x10
    scene = bench.file("flipped.tif", bytes(damaged))
    segment_refuses(bench, scene, scene=scene)


def test_flipped_bits_in_the_pixels_are_refused(bench):
    damaged = bytearray(bench.scene.read_bytes())
    for place in range(len(damaged) // 2, len(damaged), 97):
        damaged[place] ^= 0xFF
    scene = bench.file("flipped.tif", bytes(damaged))
    segment_refuses(bench, scene, scene=scene)
    train_refuses(bench, scene, scene=scene)


def test_a_scene_without_data_gives_a_map_without_data_and_a_warning(bench):
    scene = bench.raster("void.tif", np.zeros((3, 41, 30), np.uint8), nodata=0)
    result = run("segment", scene, "--model", bench.model, "-o", bench.folder / "map.tif")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: {scene}: holds no data; the whole map is nodata")
    assert (read_raster(bench.folder / "map.tif") == 255).all()


def test_an_output_that_is_there_is_kept(bench):
    output = bench.file("old.tif", b"an older map")
    segment_refuses(bench, output, output=output)


def test_an_output_is_never_a_folder_or_of_another_format(bench):
    segment_refuses(bench, bench.folder, output=bench.folder)
    (bench.folder / "maps.tif").mkdir()
    segment_refuses(bench, "maps.tif", output=bench.folder / "maps.tif", more=["--overwrite"])
    for name in ("map.png", "map", "map.tif.gz"):
        segment_refuses(bench, name, output=bench.folder / name)


@pytest.mark.parametrize("way", ["the same path", "a link", "a relative path", "its confidence"])
def test_an_output_is_never_the_scene_itself(way, bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    output, more = bench.scene, ["--overwrite"]
    if way == "a link":
        output = bench.folder / "link.tif"
        output.symlink_to(bench.scene)
    elif way == "a relative path":
        output = Path("sub") / ".." / "ortho.tif"
        (bench.folder / "sub").mkdir()
    elif way == "its confidence":
        output, more = bench.folder / "map.tif", ["--overwrite", "--confidence", bench.scene]
    segment_refuses(bench, "an input of this run", output=output, more=more)


@pytest.mark.parametrize("option", ["-o", "--confidence", "--probabilities", "--polygons"])
def test_an_output_in_a_folder_that_is_missing_is_refused(option, bench):
    name = "p.gpkg" if option == "--polygons" else "p.tif"
    path = bench.folder / "absent" / name
    if option == "-o":
        segment_refuses(bench, path, output=path)
    else:
        segment_refuses(bench, path, more=[option, path])


def read_only_folder(bench):
    """A folder that nobody may write to, root neither."""
    closed = bench.folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    return Path("/proc/self") if os.access(closed, os.W_OK) else closed


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder closed to root")
def test_an_output_in_a_read_only_folder_is_refused(bench):
    folder = read_only_folder(bench)
    segment_refuses(bench, folder / "map.tif", output=folder / "map.tif")
    result = run("train", bench.scene, "--labels", bench.labels, "-o", folder / "new.model")
    before = contents(bench.folder)
    check_refusal(result, folder / "new.model", leaves=(bench.folder, before))


def edited(**changes):
    def spoil(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return spoil


def without(name):
    def spoil(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def holding(name, content):
    def spoil(folder):
        (folder / name).write_bytes(content)

    return spoil


def cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])


BAD_MODELS = {
    "no config": without("config.json"),
    "no weights": without("model.safetensors"),
    "no backbone": without("backbone"),
    "garbage config": holding("config.json", b"\x00{nonsense"),
    "config of another kind": holding("config.json", b'{"model_type": "bert"}'),
    "config that is a list": holding("config.json", b"[1, 2]"),
    "a later format": edited(format_version=99),
    "no legend": edited(legend=None),
    "a legend of one": edited(legend=[{"class_id": 1, "name": "a", "color": "#000000"}]),
    "statistics that are no numbers": edited(statistics={"mean": ["x"]}),
    "a network that cannot be": edited(network={"size": "huge", "num_classes": 3}),
    "another network's setting": edited(network={"layers": 3, "num_classes": 3}),
    "bands that are no list": edited(bands=3),
    "cut weights": cut_weights,
    "garbage weights": holding("model.safetensors", b"garbage"),
    "a pickle": holding("extra.pt", b"\x80\x04."),
    "a pickle in its backbone": holding("backbone/pytorch_model.bin", b"\x80\x04."),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_bad_model_folder_is_refused(kind, bench):
    model = bench.spoilt_model(BAD_MODELS[kind])
    segment_refuses(bench, model, model=model)


def test_what_is_no_model_folder_at_all_is_refused(bench):
    segment_refuses(bench, "absent.model", model=bench.folder / "absent.model")
    (bench.folder / "map.tif").unlink()
    segment_refuses(bench, bench.scene, model=bench.scene)
    (bench.folder / "map.tif").unlink()
    segment_refuses(bench, bench.backbone, model=bench.backbone)


SQUARES = [shapely.box(10, 10, 50, 50), shapely.box(100, 5, 140, 60), shapely.box(90, 90, 150, 140)]
BOW_TIE = shapely.Polygon([(10, 10), (60, 60), (60, 10), (10, 60)])

BAD_LABELS = {
    "missing": lambda b: b.folder / "absent.gpkg",
    "empty file": lambda b: b.file("empty.gpkg", b""),
    "text": lambda b: b.file("notes.gpkg", b"notes\n" * 100),
    "folder": lambda b: b.folder,
    "cut short": lambda b: b.file("cut.gpkg", b.labels.read_bytes()[:9000]),
    "elsewhere": lambda b: b.table(
        "far.gpkg", [shapely.affinity.translate(s, 9e4, 0) for s in SQUARES]
    ),
    "without the field": lambda b: b.table("kinds.gpkg", SQUARES, kind=[1, 2, 3]),
    "without CRS": lambda b: b.table("nowhere.gpkg", SQUARES, crs=None),
    "without features": lambda b: b.table("none.gpkg", []),
    "one class": lambda b: b.table("one.gpkg", SQUARES, **{"class": ["roof"] * 3}),
    "no class": lambda b: b.table("blank.gpkg", SQUARES, **{"class": [None, None, " "]}),
    "points": lambda b: b.table("points.gpkg", [s.centroid for s in SQUARES]),
    "lines": lambda b: b.table("lines.gpkg", [shapely.LineString(s.exterior) for s in SQUARES]),
    "empty geometries": lambda b: b.table("hollow.gpkg", [shapely.Polygon(), None, None]),
    "smaller than a pixel": lambda b: b.table(
        "dust.gpkg", [shapely.box(x, 7.1, x + 0.2, 7.3) for x in (10.1, 20.1, 30.1)]
    ),
    "fractions": lambda b: b.table("parts.gpkg", SQUARES, **{"class": [0.5, 1.0, 2.0]}),
    "a scene": lambda b: b.scene,
    "a raster of one class": lambda b: b.raster("one.tif", np.ones((1, HEIGHT, WIDTH), np.uint8)),
    "a raster elsewhere": lambda b: b.raster(
        "far.tif", np.array([[[1, 2]]], np.uint8), transform=ROTATED.translation(9e5, 0) @ ROTATED
    ),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels_are_refused(kind, bench):
    labels = BAD_LABELS[kind](bench)
    train_refuses(bench, labels, labels=labels, more=("--unlabelled", "ignore"))


def test_a_field_that_is_not_there_is_refused_and_those_there_are_listed(bench):
    train_refuses(bench, "its columns are class", more=("--class-field", "kind"))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "complex", "palette"])
def test_a_bad_scene_is_not_trained_on(kind, bench):
    scene = BAD_SCENES[kind](bench)
    train_refuses(bench, scene, scene=scene)


def test_a_scene_without_data_is_not_trained_on(bench):
    scene = bench.raster("void.tif", np.zeros((3, HEIGHT, WIDTH), np.uint8), nodata=0)
    train_refuses(bench, scene, scene=scene)


def test_a_scene_that_holds_data_beside_its_labels_alone_is_not_trained_on(bench):
    pixels = color_pixels(color_channels(HEIGHT, WIDTH))
    pixels[:, :, : WIDTH // 2] = 0
    scene = bench.raster("beside.tif", pixels, nodata=0)
    labels = bench.table("left.gpkg", [shapely.box(5, 5, 40, 60), shapely.box(50, 70, 93, 140)])
    train_refuses(bench, scene, scene=scene, labels=labels, more=("--validation-share", 0))


def test_a_backbone_that_is_none_is_refused(bench):
    train_refuses(bench, "absent", more=("--class-field", "class", "--backbone", "absent"))


@pytest.mark.parametrize(
    ("geometries", "warning"),
    [
        ([BOW_TIE, *SQUARES[1:]], "repaired 1 self-crossing polygons"),
        ([*SQUARES, shapely.Polygon(), None], "left out 2 features without a geometry"),
        ([*SQUARES, shapely.Point(9, 9)], "left out 1 features that are not polygons"),
    ],
)
def test_labels_that_are_sound_in_part_are_used_with_a_warning(geometries, warning, bench):
    labels = bench.table("mixed.gpkg", geometries)
    output = bench.folder / "new.model"
    result = run(
        "train", bench.scene, "--labels", labels, "-o", output, "--backbone", bench.backbone, *QUICK
    )
    assert result.exit_code == 0, result.stderr
    assert f"Warning: {labels}: {warning}" in result.stderr
    assert (output / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["PROJ_DATA", "PROJ_LIB"])
def test_another_programs_coordinate_systems_are_said_in_a_line(tmp_path, name):
    scene = write_raster(tmp_path / "s.tif", np.ones((3, 9, 7), np.uint8))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PROJ_")}
    ended = subprocess.run(
        [sys.executable, "-m", "geodinoseg", "info", scene],
        env=environment | {name: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = (line for line in ended.stderr.splitlines() if not line.startswith("ERROR 1: PROJ"))
    assert line.startswith("Error: coordinate systems cannot be looked up (")
