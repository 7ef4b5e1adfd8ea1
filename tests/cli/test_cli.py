"""The command line: what it takes, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import click
import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner
from coverages import write_class_raster
from rasters import read_raster, write_raster
from trainings import NAMES, color_channels, color_pixels, no_pictures

import geodinoseg
from geodinoseg.cli import _COMMANDS, bar, main
from geodinoseg.errors import SceneError
from geodinoseg.polygons import polygonize as polygonization
from geodinoseg.polygons.polygonize import write_map_polygons
from geodinoseg.segmentation import runner
from geodinoseg.training.finetuning import FineTuning

NO_PROGRESS_LINE = ""
NOTHING_KEPT = (
    "No part of the map was finished, so nothing of it is kept; the same command starts over."
)
SITE_GRID = (
    'ENGCRS["site grid",EDATUM["unknown"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["metre",1]]'
)


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "ortho.tif", color_pixels(color_channels(90, 130)))


@pytest.fixture
def segment(scene, small_model, tmp_path):
    """Run `segment` on a small scene, with these further arguments."""

    def run(*arguments, output="map.tif"):
        return cli(
            "segment",
            scene,
            "--model",
            small_model,
            "-o",
            tmp_path / output,
            "--device",
            "cpu",
            *arguments,
        )

    return run


def cli(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def events(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def files(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("command", _COMMANDS)
def test_the_help_of_every_command_holds_an_example(command):
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert f"geodinoseg {command} " in result.stdout
    assert "Example" in result.stdout
    assert command in cli("--help").stdout


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_option_says_what_it_is(command):
    options = [p for p in main.get_command(None, command).params if isinstance(p, click.Option)]
    assert all(option.help for option in options)


def test_the_help_of_all_holds_an_example_and_completion():
    text = cli("-h").stdout
    assert "geodinoseg segment ortho.tif --model" in text
    assert "_GEODINOSEG_COMPLETE=bash_source" in text
    assert text == cli("--help").stdout


def test_the_version_names_what_is_carried():
    result = cli("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"geodinoseg {geodinoseg.__version__} (rasterio ")
    assert rasterio.__gdal_version__ in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["melt"],
        ["segment"],
        ["segment", "s.tif", "--model", "m", "-o", "o.tif", "--bands", "1,red"],
        ["segment", "s.tif", "--model", "m", "-o", "o.tif", "--bands", "0,1"],
        ["segment", "s.tif", "--model", "m", "-o", "o.tif", "--tile", "0"],
        ["segment", "s.tif", "--model", "m", "-o", "o.tif", "--overlap", "many"],
        ["train", "s.tif", "-o", "m"],
        ["train", "s.tif", "--labels", "l.gpkg", "-o", "m", "--stage", "all"],
        ["train", "s.tif", "--labels", "l.gpkg", "-o", "m", "--epochs", "0"],
        ["train", "s.tif", "--labels", "l.gpkg", "-o", "m", "--seed", "-1"],
        ["train", "s.tif", "--labels", "l.gpkg", "-o", "m", "--learning-rate", "0"],
        ["info"],
        ["info", "--colour", "s.tif"],
    ],
)
def test_a_usage_error_ends_with_code_2(arguments):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: ")


def test_what_a_user_can_mend_is_one_line_and_code_1(tmp_path):
    result = cli("info", tmp_path / "absent.tif")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "absent.tif: no such file" in result.stderr


def test_a_bug_is_not_called_a_users_fault(monkeypatch, scene):
    def broken(_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("geodinoseg.cli.info.describe", broken)
    assert isinstance(cli("info", scene).exception, ZeroDivisionError)


def test_an_interrupt_is_one_line_and_code_130(monkeypatch, segment, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(geodinoseg, "segment_scene", interrupted, raising=False)
    for arguments in ((), ("--json",)):
        result = segment(*arguments)
        assert result.exit_code == 130
        assert result.stderr == "Error: interrupted; no unfinished file was left.\n"
    assert events(result) == [
        {
            "event": "error",
            "message": "interrupted; no unfinished file was left.",
            "exit_code": 130,
        }
    ]
    assert files(tmp_path) == {"ortho.tif"}


def test_an_interrupt_amid_the_work_leaves_nothing(monkeypatch, segment, small_model, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("geodinoseg.segmentation.inference._to_class_rows", interrupted)
    result = segment()
    assert (result.exit_code, result.stderr) == (130, f"Error: interrupted. {NOTHING_KEPT}\n")
    assert files(tmp_path) == {"ortho.tif"}
    many = ["segment", tmp_path / "ortho.tif", "--model", small_model, "--output-dir"]
    result = cli(*many, tmp_path / "maps", "--device", "cpu")
    assert result.stderr == (
        f"Error: interrupted. {NOTHING_KEPT} 0 of 1 scenes are done; run the same command again "
        f"for the others.\n"
    )


def test_an_interrupt_while_the_model_is_loaded_says_what_is_kept(monkeypatch, segment, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("geodinoseg.segmentation.segment.assemble", interrupted)
        assert "1 of 1 parts are done." in segment().stderr
    monkeypatch.setattr(runner, "load_model", interrupted)
    assert segment().stderr == (
        "Error: interrupted. Run the same command again to resume: 1 parts of an earlier run are "
        "done.\n"
    )
    assert segment(output="other.tif").stderr == f"Error: interrupted. {NOTHING_KEPT}\n"


@pytest.mark.parametrize(
    "place", ["training.train.read_inputs", "training.engine.build_context", "training.run.step"]
)
def test_an_interrupt_before_the_first_epoch_says_that_nothing_is_kept(
    place, monkeypatch, workshop
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    step = "geodinoseg.training.head_stage.HeadStage.train_epoch"
    monkeypatch.setattr(step if place.endswith("step") else f"geodinoseg.{place}", interrupted)
    result = cli(*workshop.call("train"))
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "Error: interrupted. No epoch was finished, so nothing is kept; the same command starts "
        "over."
    )
    assert not list((workshop.folder / "out").iterdir())
    workshop.output("new.model.checkpoint").write_text("of an earlier run")
    result = cli(*workshop.call("train"), "--resume")
    if place.endswith("read_inputs"):
        assert "new.model.checkpoint of the earlier run is kept: continue with" in result.stderr


def test_segment_writes_what_was_asked_for_and_says_so(segment, tmp_path):
    result = segment(
        "--confidence",
        tmp_path / "sure.tif",
        "--probabilities",
        tmp_path / "shares.tif",
        "--polygons",
        tmp_path / "map.gpkg",
        "--polygons",
        tmp_path / "parts.shp",
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == NO_PROGRESS_LINE
    for name in ("map.tif", "sure.tif", "shares.tif", "map.gpkg", "parts.shp"):
        assert (tmp_path / name).is_file()
        assert str(tmp_path / name) in result.stdout
    assert "130 x 90 px, 3 classes (field, roof, water)" in result.stdout
    assert {"map.qml", "sure.qml", "parts.qml"} <= files(tmp_path)
    with rasterio.open(tmp_path / "shares.tif") as shares:
        assert shares.count == 3
    ids = read_raster(tmp_path / "map.tif")
    assert set(np.unique(ids)) <= {0, 1, 2}


def test_json_events_rise_to_done_and_nothing_else_is_printed(segment, tmp_path):
    result = segment("--json", "--polygons", tmp_path / "a.gpkg", "--polygons", tmp_path / "b.fgb")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    told = events(result)
    fractions = [event["fraction"] for event in told[:-1]]
    assert {event["event"] for event in told[:-1]} == {"progress"}
    assert all(event["message"] for event in told[:-1])
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert told[-1]["event"] == "done"
    assert told[-1]["outputs"] == [str(tmp_path / name) for name in ("map.tif", "a.gpkg", "b.fgb")]


def test_with_json_an_error_is_the_last_event(tmp_path, segment):
    (tmp_path / "map.tif").write_text("mine")
    result = segment("--json")
    assert result.exit_code == 1
    assert [event["event"] for event in events(result)] == ["error"]
    assert result.stderr == f"Error: {events(result)[0]['message']}\n"


@pytest.mark.parametrize("closed", [pytest.param("--json >&-", marks=pytest.mark.slow), ">&- 2>&-"])
def test_a_run_does_without_anybody_who_listens(scene, small_model, tmp_path, closed):
    command = (
        f"{sys.executable} -m geodinoseg segment {scene} --model {small_model} "
        f"-o {tmp_path / 'deaf.tif'} {closed}"
    )
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "deaf.tif").is_file()


def test_json_is_ascii_whatever_the_names_are(tmp_path):
    result = cli("info", tmp_path / "Straße \udcdf.tif", "--json")
    assert json.loads(result.stdout)["message"].startswith(str(tmp_path / "Straße \udcdf.tif"))
    assert result.stdout.isascii()


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(segment, tmp_path):
    result = segment("--dry-run", "--tile", "56", "--batch-size", "3")
    assert result.exit_code == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "130 x 90 px" in lines["scene"]
    assert "of 56 px" in lines["tiles"]
    assert "batches of 3" in lines["tiles"]
    assert "MB to read, blend and write" in lines["memory"]
    assert "MB before compression" in lines["output"]
    assert " s for the network" in lines["time"]
    assert files(tmp_path) == {"ortho.tif"}


def test_a_dry_run_in_json_is_one_event(segment):
    (event,) = events(segment("--dry-run", "--json"))
    assert (event["event"], event["outputs"]) == ("done", [])
    plan = event["result"]
    assert plan["output_bytes"] == 90 * 130
    assert plan["tiles"] > 1
    assert 0 < plan["memory_bytes"] <= 1 << 30
    assert plan["parts"] == 1
    assert plan["seconds"] >= 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--polygons", "map.shp"], "map.shp"),
        (["--polygons", "other.gpkg", "--polygons", "map.geojson"], "map.geojson"),
        (["--confidence", "map.tiff"], "map.tiff"),
        (["--confidence", "sure.tif", "--polygons", "sure.fgb"], "sure.fgb"),
    ],
)
def test_outputs_that_would_share_a_style_file_are_refused_before_the_work(
    arguments, named, segment, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner.ThisProcess, "prepare", None)
    result = segment(*[a if a.startswith("--") else tmp_path / a for a in arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / named}: would share the style file ")
    assert result.stderr.count("\n") == 1
    assert files(tmp_path) == {"ortho.tif"}


def test_one_path_for_two_outputs_is_refused(segment, tmp_path):
    result = segment("--polygons", tmp_path / "p.gpkg", "--polygons", tmp_path / "." / "p.gpkg")
    assert "two outputs cannot be the same file" in result.stderr
    result = segment("--confidence", tmp_path / "map.tif")
    assert "two outputs cannot be the same file" in result.stderr


def test_polygons_that_cannot_be_are_refused_before_the_work(small_model, tmp_path):
    pixels = color_pixels(color_channels(40, 50))
    lost = write_raster(tmp_path / "lost.tif", pixels, crs=None, transform=None)
    no_crs = write_raster(tmp_path / "no_crs.tif", pixels, crs=None)
    crs_only = write_raster(tmp_path / "crs_only.tif", pixels, transform=None)
    site = write_raster(tmp_path / "site.tif", pixels, crs=SITE_GRID)
    mars = write_raster(tmp_path / "mars.tif", pixels, crs="IAU_2015:49910")
    sound = write_raster(tmp_path / "sound.tif", pixels)
    (tmp_path / "old.qix").write_text("old")
    for path, name, text in (
        (lost, "p.gpkg", "lost.tif: is not georeferenced"),
        (crs_only, "p.gpkg", "crs_only.tif: is not georeferenced"),
        (no_crs, "p.geojson", "p.geojson: GeoJSON is in longitude and latitude"),
        (no_crs, "p.kml", "p.kml: the name must end in"),
        (site, "p.geojson", "no transformation exists from the CRS 'site grid' to 'WGS 84'"),
        (sound, "old.shp", "old.qix: exists already, and would be read as part of old.shp"),
        (mars, "p.json", "no transformation exists from the CRS 'Mars (2015)"),
    ):
        result = cli(
            "segment",
            path,
            "--model",
            small_model,
            "-o",
            tmp_path / "map.tif",
            "--polygons",
            tmp_path / name,
        )
        assert result.exit_code == 1
        assert text in result.stderr
        assert result.stderr.count("\n") == 1
    assert files(tmp_path) == {
        "old.qix",
        *(f"{name}.tif" for name in ("lost", "no_crs", "crs_only", "site", "mars", "sound")),
    }


def test_polygons_of_segment_are_drawn_as_those_of_polygonize(segment, tmp_path):
    options = ["--min-area", "30", "--fill-holes", "9", "--simplify", "1.5"]
    assert segment("--polygons", tmp_path / "plain.gpkg").exit_code == 0
    done = segment("--polygons", tmp_path / "a.gpkg", *options, "--overwrite")
    assert done.exit_code == 0
    cli("polygonize", tmp_path / "map.tif", "-o", tmp_path / "b.gpkg", *options)
    plain, found, expected = (
        pyogrio.read_dataframe(tmp_path / f"{name}.gpkg", layer=name)
        for name in ("plain", "a", "b")
    )
    assert found.equals(expected)
    assert not found.geometry.equals(plain.geometry)


@pytest.mark.parametrize(
    "option",
    [["--min-area", "3"], ["--fill-holes", "3"], ["--simplify", "1"], ["--simplify", "1m"]],
)
def test_options_of_polygons_need_polygons(segment, option):
    result = segment(*option)
    assert result.exit_code == 2
    assert f"{option[0]} has no effect without --polygons." in result.stderr
    assert segment("--simplify", "0", "--min-area", "0", "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    "option", [["--min-area", "3"], ["--fill-holes", "3"], ["--simplify", "1m"]]
)
def test_without_a_crs_sizes_of_polygons_in_metres_are_refused_before_the_run(
    small_model, tmp_path, option
):
    pixels = color_pixels(color_channels(40, 50))
    scene = write_raster(tmp_path / "s.tif", pixels, crs=None)
    wanted = ["segment", scene, "--model", small_model, "-o", tmp_path / "map.tif"]
    wanted += ["--polygons", tmp_path / "p.gpkg"]
    result = cli(*wanted, *option)
    assert result.exit_code == 1
    assert f"s.tif: has no CRS, so {option[0]} cannot be applied in metres" in result.stderr
    assert result.stderr.count("\n") == 1
    assert files(tmp_path) == {"s.tif"}
    result = cli(*wanted, "--simplify", "1")
    assert result.exit_code == 0
    assert result.stderr.count("get no area_m2 and perim_m") == 1


def test_outputs_are_replaced_when_that_was_asked_for(segment, tmp_path):
    (tmp_path / "map.tif").write_text("old")
    assert segment("--overwrite").exit_code == 0
    assert read_raster(tmp_path / "map.tif").shape == (90, 130)


def test_warnings_are_a_line_each_on_stderr(segment, tmp_path, small_model):
    pixels = color_pixels(color_channels(40, 50)).astype(np.uint16)
    pixels[:, :10] = 0  # and nothing marks it as missing
    scene = write_raster(tmp_path / "deep.tif", pixels)
    result = cli("segment", scene, "--model", small_model, "-o", tmp_path / "map.tif")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"Warning: {scene}: has pixels of type uint16")
    assert [line.startswith(f"Warning: {scene}: ") for line in lines] == [True, True]
    assert "--nodata 0" in lines[1]


def test_train_writes_a_model_that_segment_takes(color_field, backbone, tmp_path):
    model = tmp_path / "field.model"
    result = cli(
        "train",
        color_field.scene,
        "--labels",
        color_field.labels,
        "--class-field",
        "class",
        "-o",
        model,
        "--backbone",
        backbone,
        "--stage",
        "head",
        "--no-quantize",
        "--epochs",
        2,
        "--steps-per-epoch",
        8,
        "--batch-size",
        4,
        "--crop",
        56,
        "--learning-rate",
        0.02,
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    told = events(result)
    assert (told[-1]["event"], told[-1]["outputs"]) == ("done", [str(model)])
    progress = [event for event in told if event["event"] == "progress"]
    assert progress[-1]["fraction"] == 1
    assert "mean IoU" in progress[-1]["message"]
    result = cli("segment", color_field.scene, "--model", model, "-o", tmp_path / "map.tif")
    assert result.exit_code == 0, result.stderr
    agree = read_raster(tmp_path / "map.tif") == color_field.channels + 1
    assert agree.mean() > 0.8
    (event,) = events(cli("info", model, "--json"))
    facts = event["result"]
    assert facts["kind"] == "model"
    assert facts["classes"][0]["name"] == "field"
    assert facts["scores"]["mean_iou"] > 0.5


def test_train_says_what_it_wrote_and_what_comes_next(color_field, backbone, tmp_path):
    result = cli(
        "train",
        color_field.scene,
        "--labels",
        color_field.labels,
        "--class-field",
        "class",
        "-o",
        tmp_path / "field.model",
        "--backbone",
        backbone,
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
        56,
        "--head",
        "cnn",
        "--channels",
        16,
        "--n-features",
        2,
        "--ignore-class",
        "water",
    )
    assert result.exit_code == 0, result.stderr
    first, score, following = result.stdout.splitlines()
    assert first.endswith("field.model: a model of 2 classes (field, roof)")
    assert result.stderr.splitlines()[-1] == "the head alone was trained"
    assert re.fullmatch(
        r"mean IoU 0\.\d{3} on blocks held out in turn \(cross-validation, 3 folds\)", score
    )
    assert following.startswith("next: geodinoseg segment SCENE --model ")


def test_classes_that_no_held_out_pixel_judges_are_named(color_field, backbone, tmp_path):
    frame = geopandas.read_file(color_field.labels)
    # One polygon alone cannot be on both sides.
    one = frame[frame["class"] == "water"].index[1:]
    frame.drop(one).to_file(tmp_path / "labels.gpkg")
    result = cli(
        "train",
        color_field.scene,
        *("--labels", tmp_path / "labels.gpkg", "--class-field", "class", "--backbone", backbone),
        *("--stage", "head", "--head", "linear", "--epochs", 1, "--steps-per-epoch", 1),
        *("--batch-size", 1, "--crop", 56, "-o", tmp_path / "field.model"),
    )
    assert result.exit_code == 0, result.stderr
    assert "no held-out pixel of water: how well these are mapped is unknown" in result.stdout


def train_arguments(color_field, backbone, output, *more):
    return [
        "train",
        color_field.scene,
        "--labels",
        color_field.labels,
        "-o",
        output,
        "--backbone",
        backbone,
        "--no-quantize",
        "--crop",
        56,
        "--epochs",
        2,
        "--steps-per-epoch",
        2,
        "--batch-size",
        2,
        "--cached-crops",
        8,
        "--device",
        "cpu",
        *more,
    ]


def test_train_says_beforehand_what_it_would_train(color_field, backbone, tmp_path):
    output = tmp_path / "field.model"
    result = cli(*train_arguments(color_field, backbone, output, "--dry-run"))
    assert result.exit_code == 0, result.stderr
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
    assert lines["stages"] == "head, fused, further, lora"
    assert lines["cached crops"] == "8"
    assert lines["labelled pixels to train on"].startswith("field: ")
    (event,) = events(cli(*train_arguments(color_field, backbone, output, "--dry-run", "--json")))
    assert event["result"]["epochs_of_each"] == [1, 1, 1, 1], "three folds share two"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_train_that_is_stopped_keeps_the_best_and_goes_on(
    number, code, color_field, backbone, tmp_path, monkeypatch
):
    no_pictures(monkeypatch)
    output = tmp_path / "field.model"
    arguments = train_arguments(color_field, backbone, output, "--epochs", 4)
    once = FineTuning.train_epoch

    def stopped(stage, epoch):
        if epoch == 1:
            os.kill(os.getpid(), number)
        return once(stage, epoch)

    monkeypatch.setattr(FineTuning, "train_epoch", stopped)
    result = cli(*arguments)
    assert result.exit_code == code
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: terminated. " if code == 143 else "Error: interrupted. ")
    assert last.endswith(f"is kept at {output}, unfinished; continue with --resume.")
    monkeypatch.setattr(FineTuning, "train_epoch", once)
    refused = cli(*arguments)
    assert refused.exit_code == 1
    assert "continue with --resume, or start over with --overwrite." in refused.stderr
    result = cli(*arguments, "--resume")
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["field.model"]
    assert any("the linear head" in line for line in result.stderr.splitlines())


def test_info_of_a_scene_says_where_it_lies_and_what_it_holds(scene):
    result = cli("info", scene)
    assert result.exit_code == 0
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert lines["kind"].strip() == "scene"
    assert lines["columns x rows"].strip() == "130, 90"
    assert lines["crs"].strip() == "EPSG:32633"
    assert lines["dtype"].strip() == "uint8"


def test_info_of_a_scene_without_a_place(tmp_path):
    path = write_raster(
        tmp_path / "s.tif", np.zeros((1, 7, 5), np.float32), crs=None, transform=None, nodata=-1
    )
    lines = dict(line.split("  ", 1) for line in cli("info", path).stdout.splitlines())
    assert lines["crs"].strip() == "none"
    assert lines["ground resolution, m"].strip() == "unknown"
    assert lines["nodata"].strip() == "-1.0"


def test_info_of_a_map_names_its_classes_and_its_making(segment, tmp_path):
    assert segment("--confidence", tmp_path / "sure.tif").exit_code == 0
    facts = json.loads(cli("info", tmp_path / "map.tif", "--json").stdout)["result"]
    assert facts["kind"] == "class_raster"
    assert [entry["name"] for entry in facts["classes"]] == list(NAMES)
    assert facts["confidence"].endswith("sure.tif")
    assert (facts["model"], facts["scene"]) == ("small.model", "ortho.tif")


def test_segment_and_info_print_the_area_of_each_class(segment, tmp_path):
    said = segment().stdout
    told = cli("info", tmp_path / "map.tif")
    table = told.stdout.partition("\nareas\n")[2].splitlines()
    assert table[0].split() == ["class", "pixels", "area,", "m2", "fraction"]
    assert [line.split()[0] for line in table[1:]] == list(NAMES)
    assert "\n".join(["areas", *table]) in said
    facts = json.loads(cli("info", tmp_path / "map.tif", "--json").stdout)["result"]
    pixels = np.bincount(read_raster(tmp_path / "map.tif").ravel(), minlength=len(NAMES))
    assert [area["pixels"] for area in facts["areas"]] == pixels[: len(NAMES)].tolist()


def test_info_describes_a_map_with_a_value_that_is_no_class(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", np.array([[1, 9]], np.uint8))
    result = cli("info", path)
    assert result.exit_code == 0
    assert "Areas are unknown" in result.stderr
    assert "areas" not in result.stdout


def test_info_of_a_map_by_others_lists_the_classes_that_occur(tmp_path):
    path = write_raster(
        tmp_path / "m.tif", np.array([[[3, 5, 5]]], np.uint8), photometric="palette"
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {3: (255, 0, 0), 5: (0, 0, 255)})
    facts = json.loads(cli("info", path, "--json").stdout)["result"]
    assert facts["kind"] == "class_raster"
    assert [entry["class_id"] for entry in facts["classes"]] == [3, 5]


def test_info_of_a_damaged_model_is_one_line(small_model, tmp_path):
    damaged = shutil.copytree(small_model, tmp_path / "damaged.model")
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"network": None}))
    result = cli("info", damaged)
    assert result.exit_code == 1
    assert "damaged.model: config.json is incomplete or damaged" in result.stderr


def test_picture_draws_scene_and_map(segment, scene, tmp_path):
    assert segment().exit_code == 0
    result = cli("picture", scene, tmp_path / "map.tif", "-o", tmp_path / "map.png")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "map.png" in result.stdout


class Terminal:
    """A stderr that says it is a terminal and keeps what is drawn."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_on_a_terminal_the_bar_shows_the_message_and_fills(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with bar.progress_bar("segmenting") as progress:
        progress(0.0, "starting")
        progress(1.0, "0.52 Mpx/s")
    assert "segmenting" in terminal.text
    assert "0.52 Mpx/s" in terminal.text
    assert "100%" in terminal.text


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | environment,
    )


def test_a_mistyped_path_is_answered_without_loading_torch(scene, small_model, tmp_path):
    (tmp_path / "old.tif").write_text("old")
    there, absent, out = str(scene), str(tmp_path / "absent"), str(tmp_path / "map.tif")
    model, labels = str(small_model), str(tmp_path)
    cases = [
        ["segment", absent, "--model", model, "-o", out],
        ["segment", there, "--model", absent, "-o", out],
        ["segment", there, "--model", there, "-o", out],
        ["segment", there, "--model", str(tmp_path), "-o", out],
        ["segment", there, "--model", model, "-o", str(tmp_path / "old.tif")],
        ["segment", there, "--model", model, "-o", f"{absent}/map.tif"],
        ["segment", there, "--model", model, "-o", out, "--confidence", f"{absent}/c.tif"],
        ["segment", there, "--model", model, "-o", out, "--polygons", f"{absent}/p.gpkg"],
        ["segment", there, "--model", model, "-o", out, "--bands", "7"],
        ["train", absent, "--labels", labels, "-o", f"{absent}.model"],
        ["train", there, "--labels", absent, "-o", f"{absent}.model"],
        ["train", there, "--labels", labels, "-o", f"{absent}/new.model"],
        ["train", there, "--labels", labels, "-o", model],
        ["info", absent],
    ]
    code = f"""if True:
        import sys
        from geodinoseg.cli import main
        for case in {cases!r}:
            try:
                main(case, prog_name="geodinoseg")
            except SystemExit as end:
                print(end.code)
        print("torch" in sys.modules)
    """
    done = python("-c", code)
    assert done.stdout.split() == ["1"] * len(cases) + ["False"]
    lines = done.stderr.splitlines()
    assert len(lines) == len(cases), done.stderr
    assert all(line.startswith("Error: ") for line in lines)


@pytest.mark.parametrize("more", [[], pytest.param(["--dry-run"], marks=pytest.mark.slow)])
def test_a_python_without_docstrings_is_refused_in_a_line(more, scene, small_model, tmp_path):
    for words in (
        ["segment", scene, "--model", small_model, "-o", tmp_path / "map.tif"],
        ["train", scene, "--labels", scene, "-o", tmp_path / "new.model"],
    ):
        done = python("-OO", "-m", "geodinoseg", *words, *more)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: Python runs with -OO or PYTHONOPTIMIZE=2")
        assert done.stderr.count("\n") == 1
    assert python("-OO", "-m", "geodinoseg", "info", small_model).returncode == 0


def test_help_loads_neither_torch_nor_rasterio():
    code = """if True:
        import sys
        from geodinoseg.cli import main
        for words in ([], ["segment"], ["train"]):
            try:
                main([*words, "--help"], prog_name="geodinoseg")
            except SystemExit as end:
                assert end.code == 0
        print(*[name for name in ("torch", "rasterio", "numpy") if name in sys.modules], "end")
    """
    assert python("-c", code).stdout.splitlines()[-1] == "end"


def test_the_module_runs_as_the_command(tmp_path):
    done = python("-m", "geodinoseg", "info", tmp_path / "absent.tif", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["event"] == "error"
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_shell_completion_prints_a_script_and_completes(tmp_path):
    script = python("-m", "geodinoseg", _GEODINOSEG_COMPLETE="zsh_source")
    assert script.returncode == 0
    assert "_GEODINOSEG_COMPLETE=zsh_complete" in script.stdout
    words = python(
        "-m",
        "geodinoseg",
        _GEODINOSEG_COMPLETE="bash_complete",
        COMP_WORDS="geodinoseg tr",
        COMP_CWORD="1",
    )
    assert words.stdout.split() == ["plain,train"]


def test_errors_of_other_threads_and_libraries_do_not_spoil_the_one_line(tmp_path):
    scene = write_raster(tmp_path / "s.tif", color_pixels(color_channels(90, 130)))
    scene.write_bytes(scene.read_bytes()[:9000])
    done = python("-m", "geodinoseg", "picture", scene, scene, "-o", tmp_path / "p.png")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_scene_error_of_the_library_is_a_scene_error_here(scene, monkeypatch, segment):
    def broken(*_, **__):
        raise SceneError("s.tif: rows 3 to 5 cannot be read.")

    monkeypatch.setattr(geodinoseg, "segment_scene", broken, raising=False)
    assert segment().stderr == "Error: s.tif: rows 3 to 5 cannot be read.\n"


@pytest.mark.slow
def test_a_command_that_is_ended_from_outside_leaves_nothing(small_model, tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (3, 3000, 3000)).astype(np.uint8)
    scene = write_raster(tmp_path / "s.tif", pixels)
    command = [sys.executable, "-m", "geodinoseg", "segment", str(scene), "--model", small_model]
    process = subprocess.Popen(
        [*map(str, command), "-o", str(tmp_path / "map.tif")], stderr=subprocess.PIPE, text=True
    )
    # The temporary folder appears when the work has begun.
    for _ in range(600):
        if list(tmp_path.glob(".geodinoseg-*")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1] == f"Error: terminated. {NOTHING_KEPT}"
    assert files(tmp_path) == {"s.tif"}


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--max-memory", "0B"], 2, "is not a possible size of memory"),
        (["--max-memory", "9" * 400 + "GB"], 2, "is not a possible size of memory"),
        (["--resolution", "nan"], 2, "is not a length above 0"),
        (["--resolution", "inf"], 2, "is not a length above 0"),
        (["--device", "cupp"], 2, "give auto, cpu, cuda or cuda:N"),
        (["--bands", "1,2"], 1, "--bands gives 2 bands, but the model reads 3"),
        (["--scheduler", "node1"], 1, "node1: is not a scheduler address"),
        (["--scheduler", "tcp://node1"], 1, "tcp://node1: is not a scheduler address"),
        (["--scheduler", "tcp://node1:x"], 1, "tcp://node1:x: is not a scheduler address"),
        (["--scheduler", "tcp://127.0.0.1:1"], 1, "1: no Dask scheduler answers there"),
        (
            ["--scheduler", "/missing/dask.json"],
            1,
            "dask.json: is not a file that a Dask scheduler",
        ),
        (["--scheduler", __file__], 1, "test_cli.py: is not a file that a Dask scheduler wrote"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_torch_is_loaded(
    scene, small_model, tmp_path, options, code, told
):
    script = (
        "import sys\n"
        "from geodinoseg.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    arguments = ["segment", scene, "--model", small_model, "-o", tmp_path / "map.tif", *options]
    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (code, "")
    assert told in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", [".", "/", "ü" * 126 + ".tif", "x" * 247 + ".tif"])
def test_a_name_that_no_output_can_have_is_refused_in_a_line(scene, small_model, name):
    result = cli("segment", scene, "--model", small_model, "-o", name)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: .*(is a folder|is too long a name); give .*\n", result.stderr)


def test_a_name_as_long_as_file_systems_allow_is_written(segment, tmp_path):
    name = "x" * 243 + ".tif"
    assert segment(output=name).exit_code == 0
    assert files(tmp_path) >= {name, f"{name}.aux.xml"}


def test_whoever_is_stopped_amid_the_polygons_goes_on_with_the_same_command(
    monkeypatch, segment, tmp_path
):
    written, wanted = [], [tmp_path / name for name in ("fields.gpkg", "borders.shp", "plain.fgb")]
    options = [option for path in wanted for option in ("--polygons", path)]

    def interrupted_at_the_second(raster, path, settings, **more):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        return write_map_polygons(raster, path, settings, **more)

    with monkeypatch.context() as patched:
        patched.setattr(polygonization, "write_map_polygons", interrupted_at_the_second)
        result = segment(*options)
    assert result.exit_code == 130
    line = result.stderr.splitlines()[-1]
    assert f"{tmp_path / 'map.tif'} is complete, its polygons are not. Run the same command" in line
    assert {"map.tif", "fields.gpkg", "map.tif.parts"} <= files(tmp_path)

    assert segment(*options).exit_code == 0
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert "map.tif.parts" not in files(tmp_path)
    assert segment(*options, "--overwrite").exit_code == 0
    assert left == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_polygons_that_were_there_before_are_not_replaced_by_a_run_that_goes_on(
    monkeypatch, segment, tmp_path
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(polygonization, "write_map_polygons", interrupted)
        assert segment("--polygons", tmp_path / "fields.gpkg").exit_code == 130
    (tmp_path / "others.gpkg").write_bytes(b"somebody's work")
    result = segment("--polygons", tmp_path / "others.gpkg")
    assert result.exit_code == 1
    assert "others.gpkg: exists already" in result.stderr
    assert (tmp_path / "others.gpkg").read_bytes() == b"somebody's work"


@pytest.mark.parametrize("words", ["--help", "--version", "segment --help", "polygonize -h"])
@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (
            "> /dev/full",
            (1, "Error: standard output: cannot be written (No space left on device).\n"),
        ),
        ("| true", (0, "")),
        (">&-", (0, "")),
    ],
)
def test_help_that_nobody_can_read_ends_without_a_traceback(words, stream, expected):
    # `true` may be slower than help is, so that help would still find it listening.
    wait = "sleep 0.3; exec" if "|" in stream else "exec"
    script = f"set -o pipefail; ({wait} {sys.executable} -m geodinoseg {words}) {stream}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == expected
