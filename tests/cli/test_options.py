"""Every option of every command changes what a run gives, is refused, or is said to do nothing.

The options come from click's own tree, so that a new one cannot be forgotten. Those of `train`
are in `test_train_options.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass

import click
import geopandas
import numpy as np
import pytest
import shapely
from commands import COMMANDS, cli, parameters
from rasters import ROTATED, write_raster
from sampled_maps import fill, map_classes, write_map
from trainings import NAMES, color_channels, color_pixels

from geodinoseg.cli import main
from geodinoseg.cli.command import Command
from geodinoseg.cluster import local
from geodinoseg.errors import ClusterError
from geodinoseg.evaluation.sampling.draw import SampleOptions, draw_sample
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.segmentation import segment as segmentation

OTHERS = [command for command in COMMANDS if command != "train"]

OPTIONS = {
    "segment": {
        "--model": ["other.model"],
        "--output": ["OUT/other.tif"],
        "--polygons": ["OUT/map.gpkg"],
        "--min-area": ["20"],
        "--fill-holes": ["300"],
        "--simplify": ["2"],
        "--confidence": ["OUT/sure.tif"],
        "--probabilities": ["OUT/shares.tif"],
        "--bands": ["3,2,1"],
        "--nodata": ["0"],
        "--tile": ["84"],
        "--overlap": ["30"],
        "--batch-size": ["3"],
        "--max-memory": ["1KB"],
        "--resolution": ["0.9"],
        "--precision": ["bfloat16"],
        "--device": ["cuda:99"],
        "--allow-external": [],
        "--dry-run": [],
        "--overwrite": [],
        "--no-resume": [],
        "--parts": ["small.tif"],
        "--workers": ["2"],
        "--scheduler": ["tcp://127.0.0.1:1"],
        "--output-dir": ["OUT/maps"],
        "--name-template": ["{parent}_{stem}.tif"],
        "--scene-list": ["list.txt"],
        "--asset": ["second"],
        "--json": [],
    },
    "polygonize": {
        "--output": ["OUT/other.gpkg"],
        "--min-area": ["20"],
        "--keep-class": ["water"],
        "--fill-holes": ["500"],
        "--simplify": ["1.5"],
        "--classes": ["field,water"],
        "--dissolve": [],
        "--legend": ["legend.csv"],
        "--allow-external": [],
        "--overwrite": [],
        "--json": [],
    },
    "evaluate": {
        "--labels": ["full.tif"],
        "--sample": ["points.gpkg"],
        "--output": ["OUT/report.json"],
        "--class-field": ["other"],
        "--unlabelled": ["background"],
        "--extent": ["extent.gpkg"],
        "--ignore-class": ["water"],
        "--rename": ["roof=water"],
        "--all-touched": [],
        "--regions": ["regions.gpkg"],
        "--region-field": ["code"],
        "--confidence": ["sure.tif"],
        "--boundary-tolerance": ["1"],
        "--further-class": ["swamp"],
        "--legend": ["legend.csv"],
        "--allow-external": [],
        "--overwrite": [],
        "--json": [],
    },
    "sample": {
        "--output": ["OUT/other.gpkg"],
        "--points": ["70"],
        "--standard-error": ["0.05"],
        "--expected-accuracy": ["water=0.95"],
        "--allocation": ["proportional"],
        "--min-per-class": ["30"],
        "--seed": ["7"],
        "--legend": ["legend.csv"],
        "--allow-external": [],
        "--overwrite": [],
        "--json": [],
    },
    "picture": {
        "--output": ["OUT/other.png"],
        "--title": ["Banepa"],
        "--caption": ["Imagery: nobody"],
        "--bands": ["3,2,1"],
        "--legend": ["legend.csv"],
        "--allow-external": [],
        "--overwrite": [],
        "--json": [],
    },
    "style": {"--polygons": ["fields.fgb"], "--json": []},
    "info": {"--allow-external": [], "--json": []},
}
"""A value of each option that should count."""
for values in OPTIONS.values():
    values |= {"--verbose": [], "--log-file": ["OUT/run.log"]}

MODEL = ("--model", "small.model", "--device", "cpu")
MAP = ("map.tif", "-o", "OUT/map.gpkg")

RUNS = {
    "segment": {
        "a scene": ["collar.tif", *MODEL, "-o", "OUT/map.tif", "--tile", "112"],
        "all rasters": [
            *("small.tif", *MODEL, "-o", "OUT/map.tif", "--tile", "28"),
            *("--probabilities", "OUT/probabilities.tif", "--confidence", "OUT/confidence.tif"),
        ],
        "polygons": [
            *("collar.tif", *MODEL, "-o", "OUT/map.tif", "--tile", "112"),
            *("--polygons", "OUT/map.gpkg", "--nodata", "0"),
        ],
        "one tile": ["small.tif", *MODEL, "-o", "OUT/map.tif", "--tile", "112"],
        "a model without resolution": ["small.tif", "--model", "plain.model", "-o", "OUT/map.tif"],
        "a plan": ["collar.tif", *MODEL, "-o", "OUT/map.tif", "--tile", "112", "--dry-run"],
        "many scenes": ["small.tif", *MODEL, "--output-dir", "OUT"],
        "a STAC item": ["item.json", *MODEL, "--output-dir", "OUT", "--asset", "first"],
        "a VRT": ["scene.vrt", *MODEL, "-o", "OUT/map.tif"],
        "there already": ["small.tif", *MODEL, "-o", "OUT/old.tif"],
        "interrupted": ["small.tif", *MODEL, "-o", "OUT/interrupted.tif"],
    },
    "polygonize": {
        "a map": MAP,
        "with a least area": [*MAP, "--min-area", "20"],
        "a VRT": ["map.vrt", "-o", "OUT/map.gpkg"],
        "there already": ["map.tif", "-o", "OUT/old.gpkg"],
    },
    "evaluate": {
        "polygons": ["map.tif", "--labels", "labels.gpkg"],
        "a label raster": ["map.tif", "--labels", "full.tif"],
        "files of one class": ["map.tif", "--labels", "water=water.gpkg"],
        "a map with a background": ["ground.tif", "--labels", "labels.gpkg"],
        "an extent": ["ground.tif", "--labels", "labels.gpkg", "--extent", "extent.gpkg"],
        "regions": ["map.tif", "--labels", "labels.gpkg", "--regions", "regions.gpkg"],
        "a sample": ["map.tif", "--sample", "points.gpkg"],
        "a VRT": ["map.vrt", "--labels", "labels.gpkg"],
        "there already": ["map.tif", "--labels", "labels.gpkg", "-o", "OUT/old.json"],
    },
    "sample": {
        "as the error requires": [*MAP, "--min-per-class", "5"],
        "so many points": [*MAP, "--min-per-class", "5", "--points", "60"],
        "equal numbers": [*MAP, "--allocation", "equal"],
        "a VRT": ["map.vrt", "-o", "OUT/map.gpkg"],
        "there already": ["map.tif", "-o", "OUT/old.gpkg"],
    },
    "picture": {
        "a map": ["small.tif", "map.tif", "-o", "OUT/map.png"],
        "a VRT": ["small.tif", "map.vrt", "-o", "OUT/map.png"],
        "there already": ["small.tif", "map.tif", "-o", "OUT/old.png"],
    },
    "style": {"a map": ["styled.tif", "legend.csv"]},
    "info": {
        "a scene": ["small.tif"],
        "a map": ["map.tif"],
        "a model": ["small.model"],
        "a VRT": ["scene.vrt"],
    },
}
"""Runs of each command; every option is tried on each of them."""

MAY_BE_QUIET = {
    "--allow-external": "a permission, which plain files do not need",
    "--overwrite": "a permission, which is needed where an output exists",
    "--no-resume": "there may be nothing to resume",
    "--max-memory": "a limit, which a small scene does not reach",
    "--batch-size": "as many tiles as there are",
    "--nodata": "a value that does not occur",
    "--min-per-class": "a lower limit, which the numbers exceed anyway",
}
"""Options that do nothing in some runs, and need not say so."""

PLANNED = {
    *("--model", "--output", "--polygons", "--confidence", "--probabilities", "--precision"),
    *("--workers", "--scheduler"),
}
"""Options that do not change a plan, which takes those of the run that is planned."""

SAID = [
    ("segment", "one tile", "--overlap", "Warning: .*--overlap has no effect, because the scene"),
    (
        "segment",
        "a model without resolution",
        "--resolution",
        "Warning: .*--resolution has no effect, because the model",
    ),
    ("segment", "many scenes", "--asset", "Warning: --asset second has no effect: no STAC item"),
    ("segment", "a scene", "--asset", "Error: --asset has no effect without --output-dir."),
    ("segment", "many scenes", "--output", "Error: --output and --output-dir: give one of them."),
    ("segment", "a scene", "--min-area", "Error: --min-area has no effect without --polygons."),
    ("polygonize", "a map", "--keep-class", "Error: --keep-class has no effect without --min-area"),
    ("evaluate", "polygons", "--region-field", "Error: --region-field has no effect without --reg"),
    ("evaluate", "polygons", "--further-class", "Error: --further-class has no effect without --s"),
    ("evaluate", "polygons", "--overwrite", "Error: --overwrite has no effect without --output."),
    ("evaluate", "a label raster", "--class-field", "Warning: .*--class-field has no effect"),
    ("evaluate", "a label raster", "--all-touched", "Warning: .*--all-touched applies to polygons"),
    ("evaluate", "files of one class", "--class-field", "Warning: .*--class-field has no effect"),
    ("evaluate", "an extent", "--unlabelled", "Warning: --unlabelled background has no effect"),
    *(
        ("evaluate", "a sample", option, f"Error: {option} has no effect without --labels.")
        for option in (
            *("--class-field", "--unlabelled", "--extent", "--ignore-class", "--rename"),
            *("--all-touched", "--regions", "--confidence", "--boundary-tolerance"),
        )
    ),
    ("sample", "so many points", "--standard-error", "Error: --points and --standard-error: give"),
    ("sample", "so many points", "--expected-accuracy", "Error: --points and --expected-accuracy"),
    ("sample", "equal numbers", "--min-per-class", "Error: --min-per-class has no effect without"),
]
"""Where an option can do nothing, and what is said of it."""


@dataclass(frozen=True)
class Found:
    """All that a run gives."""

    exit_code: int
    text: str
    files: dict[str, str]


@pytest.fixture(scope="module")
def inputs(color_field, small_model, tmp_path_factory):
    """All files that the tables name."""
    folder = tmp_path_factory.mktemp("options")
    channels = color_field.channels
    write_scenes(folder)
    write_maps(folder, channels)
    write_labels(folder, channels)
    write_models(folder, small_model)
    return folder


def write_scenes(folder):
    pixels = color_pixels(color_channels(90, 130))
    pixels[:, :20, :30] = 0
    pixels[:, 40:46, 110:116] = 0
    write_raster(folder / "collar.tif", pixels)
    write_raster(folder / "small.tif", pixels[:, 20:80, 30:100])
    write_raster(folder / "second.tif", pixels[:, 30:80, 30:100])
    (folder / "scene.vrt").write_text(foreign_vrt("small.tif", width=70, height=60, bands=3))
    (folder / "list.txt").write_text(f"{folder / 'second.tif'}\n")
    assets = {name: {"href": f"{file}.tif"} for name, file in (("first", "small"), ("second",) * 2)}
    (folder / "item.json").write_text(json.dumps({"id": "item", "assets": assets}))


def foreign_vrt(name, *, width, height, bands):
    """A VRT that is refused unless files are trusted: it sets an option of the source's driver."""
    transform = ", ".join(map(str, ROTATED.to_gdal()))
    size = f'xSize="{width}" ySize="{height}"'
    inside = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{name}</SourceFilename>'
        f'<OpenOptions><OOI key="NUM_THREADS">1</OOI></OpenOptions><SourceBand>{band}</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="0" yOff="0" {size}/>'
        "</SimpleSource></VRTRasterBand>"
        for band in range(1, bands + 1)
    )
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{inside}</VRTDataset>"
    )


def write_maps(folder, channels):
    ids = np.roll(channels, 3, axis=1)
    ids[40:43, 50:54], ids[80:83, 30:33], ids[10:12, 10:13] = 2, 1, 255
    ids[200:230, 20:50][np.tri(30, dtype=bool)] = 1
    names = dict(enumerate(NAMES))
    write_map(folder / "map.tif", ids, names)
    write_map(folder / "ground.tif", ids, {**names, 7: "background"})
    write_map(folder / "full.tif", channels, names)
    write_map(folder / "styled.tif", ids, names)
    write_polygons(folder / "styled.tif", folder / "fields.fgb")
    height, width = ids.shape
    (folder / "map.vrt").write_text(foreign_vrt("map.tif", width=width, height=height, bands=1))
    write_raster(folder / "sure.tif", np.full((1, height, width), 70, np.uint8), nodata=255)
    (folder / "legend.csv").write_text("0,meadow,#112233\n1,house,#445566\n2,lake,#778899\n")
    points = folder / "points.gpkg"
    draw_sample(folder / "map.tif", points, options=SampleOptions(points=60, min_per_class=5))
    fill(points, {number: NAMES[class_id] for number, class_id in map_classes(points).items()})


def write_labels(folder, channels):
    rng = np.random.default_rng(1)
    corners = [(int(rng.integers(235)), int(rng.integers(275))) for _ in range(60)]
    frame = geopandas.GeoDataFrame(
        {
            "class": [NAMES[channels[r + 12, c + 12]] for r, c in corners],
            "other": [NAMES[(r + c) % 3] for r, c in corners],
        },
        geometry=on_ground([shapely.box(c + 0.2, r, c + 25.2, r + 25) for r, c in corners]),
        crs="EPSG:32633",
    )
    frame.to_file(folder / "labels.gpkg")
    frame[frame["class"] == "water"].to_file(folder / "water.gpkg")
    halves = on_ground([shapely.box(0, 0, 150, 260), shapely.box(150, 0, 300, 260)])
    regions = {"region": ["west", "east"], "code": ["W", "E"]}
    frame = geopandas.GeoDataFrame(regions, geometry=halves, crs="EPSG:32633")
    frame.to_file(folder / "regions.gpkg")
    frame[:1].to_file(folder / "extent.gpkg")


def on_ground(shapes):
    return [shapely.affinity.affine_transform(shape, ROTATED.to_shapely()) for shape in shapes]


def write_models(folder, small_model):
    changes = {
        "small": {},
        "plain": {"pixel_size_m": None},
        "other": {"tile_px": 42},
    }
    for name, change in changes.items():
        shutil.copytree(small_model, folder / f"{name}.model")
        path = folder / f"{name}.model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.fixture(scope="module")
def run(inputs):
    """Run a command in a folder that is the same each time; runs without an option are kept."""
    found = {}

    def run(command, words, option=()):
        key = (command, tuple(words), tuple(option))
        if key not in found:
            found[key] = run_anew(inputs, command, words, option)
        return found[key]

    return run


def run_anew(inputs, command, words, option):
    output = inputs / "out"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    for suffix in ("tif", "gpkg", "json", "png"):
        (output / f"old.{suffix}").write_text("old")
    known = {path.name for path in inputs.iterdir()}

    def full(word):
        name, separator, file = word.rpartition("=")
        if word.startswith("OUT"):
            return str(output) + word[3:]
        return f"{name}{separator}{inputs / file}" if file in known else word

    words = list(map(full, words))
    if any("interrupted" in word for word in words):
        interrupt(words)
    result = cli(command, *words, *map(full, option))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    # Times differ from run to run.
    text = re.sub(r"(time|total) .*|\"seconds\": [\d.]+|[\d.]+ Mpx/s", "", result.stdout)
    return Found(
        exit_code=result.exit_code,
        text=f"{text}\n{result.stderr}",
        files={
            str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(output.rglob("*"))
            if path.is_file() and path.suffix != ".jsonl"
        },
    )


def interrupt(words):
    """Leave the parts of an interrupted run."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segmentation, "assemble", interrupted)
        assert cli("segment", *words).exit_code == 130


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Workers take seconds to start; that they are asked for is enough."""

    def refused(count, *, device):
        raise ClusterError(f"{count} workers were asked for.")

    monkeypatch.setattr(local, "local_workers", refused)


def trials():
    """All options on all runs; segmentations are slow, but for those of one scene."""
    return [
        pytest.param(
            command,
            title,
            option,
            id=f"{command}-{title}-{option}",
            marks=[pytest.mark.slow] if command == "segment" and title != "a scene" else [],
        )
        for command in OTHERS
        for title in RUNS[command]
        for option in OPTIONS[command]
        if not is_part(words=RUNS[command][title], option=(option, *OPTIONS[command][option]))
    ]


def is_part(words, option):
    """Whether a run has the option with its value in any case."""
    pairs = zip(*(words[i:] for i in range(len(option))), strict=False)
    return tuple(option) in pairs


def is_quiet(run, command, title, option):
    """Whether an option does nothing and nothing is said; None where the run fails anyway."""
    words = RUNS[command][title]
    without = run(command, words)
    with_it = run(command, words, (option, *OPTIONS[command][option]))
    if with_it != without:
        return False
    return None if without.exit_code else True


@pytest.mark.parametrize("command", OTHERS)
def test_every_option_of_a_command_is_in_the_table(command):
    options = [p.opts[-1] for p in parameters(command) if isinstance(p, click.Option)]
    assert set(OPTIONS[command]) == set(options)


def test_every_command_refuses_what_can_do_nothing():
    assert all(isinstance(main.get_command(None, command), Command) for command in COMMANDS)


@pytest.mark.parametrize(("command", "title", "option"), trials())
def test_an_option_changes_something_or_something_is_said(command, title, option, run):
    if option not in MAY_BE_QUIET and not (title == "a plan" and option in PLANNED):
        assert not is_quiet(run, command, title, option), "it does nothing, and nothing is said"


@pytest.mark.parametrize(("command", "title", "option", "message"), SAID)
def test_what_can_do_nothing_is_said_in_a_line(command, title, option, message, run):
    words = RUNS[command][title]
    text = run(command, words, (option, *OPTIONS[command][option])).text
    assert len(re.findall(f"^{message}", text, re.MULTILINE)) == 1, text


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=[pytest.mark.slow] if c == "segment" else []) for c in OTHERS],
)
def test_every_option_does_something_somewhere(command, run):
    for option in OPTIONS[command]:
        found = [is_quiet(run, command, title, option) for title in RUNS[command]]
        assert False in found, option


def test_classes_that_the_labels_lack_cannot_be_ignored(inputs):
    words = ["map.tif", "--labels", "labels.gpkg"]
    found = run_anew(inputs, "evaluate", words, ("--ignore-class", "swamp"))
    assert found.exit_code == 1
    assert "labels.gpkg: has no class 'swamp' to ignore; its classes are field, roof, water." in (
        found.text
    )


def test_a_further_class_that_the_map_has_is_said(inputs):
    words = ["map.tif", "--sample", "points.gpkg"]
    found = run_anew(inputs, "evaluate", words, ("--further-class", "water"))
    assert found.exit_code == 0
    assert "--further-class water has no effect: the map has it." in found.text
