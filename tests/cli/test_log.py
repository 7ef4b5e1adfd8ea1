"""What is told of a run while it works: steps, --verbose, --log-file, lines of progress."""

from __future__ import annotations

import logging
import os
import re
import shutil

import pytest
from commands import COMMANDS, cli, events
from terminal import cells, drawn
from trainings import no_pictures

import geodinoseg
from geodinoseg.cli import bar
from geodinoseg.segmentation import runner

STEPS = {
    "segment": ["loading the model ", "segmenting .*: 300 x 260 px in ", "part 1 of 1 is written"],
    "train": [
        "reading scenes and labels",
        "1 scenes, classes field, roof, water; ",
        "loading the backbone",
        r"computing features of \d+ validation crops and 2 training crops",
        "head: 1 epochs",
        r"epoch 1, head: loss \d\.\d+, mean IoU 0\.\d+\.",
        "fused head: 1 epochs",
        r"epoch 2, fused head: loss \d\.\d+, mean IoU 0\.\d+\.",
        "training again on all labels",
        "calibrating",
        "writing the model .*new.model",
    ],
    "polygonize": ["tracing the polygons of .*map.tif into .*map.gpkg"],
    "evaluate": ["comparing .*map.tif with .*labels.gpkg"],
    "sample": ["counting the pixels", r"drawing \d+ points"],
    "picture": ["drawing .*map.png"],
    "info": ["reading .*scene.tif"],
    "style": ["recolouring .*styled.tif with "],
}
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR) \S.*")


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    no_pictures(monkeypatch)


def in_order(patterns, text):
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(text, at)
        assert found, f"{pattern} not in {text[at:]}"
        at = found.end()
    return True


@pytest.mark.parametrize("command", COMMANDS)
def test_each_step_is_printed_and_logged_when_that_is_wanted(command, workshop, tmp_path):
    log = tmp_path / "run.log"
    log.write_text("written before")
    words = workshop.call(command)
    plain = cli(*words)
    workshop.clear()
    told = cli(*words, "--verbose", "--log-file", log)
    assert (plain.exit_code, told.exit_code) == (0, 0)
    assert in_order(STEPS[command], told.stderr)
    assert told.stdout == plain.stdout
    assert not any(re.search(step, plain.stderr) for step in STEPS[command])
    assert set(plain.stderr.splitlines()) <= set(told.stderr.splitlines())
    first, *lines = log.read_text().splitlines()
    assert first == "written before"
    assert all(LINE.fullmatch(line) for line in lines)
    assert in_order([f"begins: geodinoseg {command}", *STEPS[command], "finished in"], str(lines))


def test_both_options_may_stand_before_the_command_too(workshop, tmp_path):
    log = tmp_path / "run.log"
    words = workshop.call("info")
    plain = cli(*words, "--log-file", log)
    assert plain.stderr == ""
    lines = log.read_text().splitlines()
    before = cli("-v", "--log-file", log, *words)
    assert before.stdout == plain.stdout
    assert in_order(STEPS["info"], before.stderr)
    assert log.read_text().splitlines()[: len(lines)] == lines
    assert len(log.read_text().splitlines()) == 2 * len(lines)
    assert not logging.getLogger("geodinoseg").handlers


def test_steps_are_notes_in_json(workshop):
    found = events(cli(*workshop.call("polygonize"), "--json", "-v"))
    notes = [event["message"] for event in found if event["event"] == "note"]
    assert in_order(STEPS["polygonize"], str(notes))


def test_warnings_errors_and_interrupts_are_logged(workshop, tmp_path, monkeypatch):
    log = tmp_path / "run.log"
    assert cli("info", tmp_path / "absent.tif", "--log-file", log).exit_code == 1
    assert " ERROR " in log.read_text().splitlines()[-1]
    assert "absent.tif: no such file" in log.read_text()
    words = [*workshop.call("segment"), "--nodata", "5", "--log-file", log]
    assert cli(*words, "--resolution", "9000").exit_code in {0, 1}

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    workshop.clear()
    monkeypatch.setattr(runner, "load_model", interrupted)
    assert cli(*words).exit_code == 130
    assert "ERROR interrupted. No part of the map" in log.read_text().splitlines()[-1]


def test_a_bug_leaves_its_traceback_in_the_log(workshop, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("geodinoseg.cli.info.describe", broken)
    log = tmp_path / "run.log"
    assert isinstance(cli(*workshop.call("info"), "--log-file", log).exception, ZeroDivisionError)
    assert "ZeroDivisionError" in log.read_text().splitlines()[-1]


@pytest.mark.parametrize("place", ["absent/run.log", ".", "/proc/run.log"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_log_that_cannot_be_written_is_a_line_before_the_work(place, order, workshop, tmp_path):
    log = tmp_path / place
    words, option = workshop.call("segment"), ["--log-file", log]
    result = cli(*option, *words) if order == "before" else cli(*words, *option)
    assert result.exit_code == 1
    assert re.fullmatch(
        f"Error: {re.escape(str(log))}: the log cannot be written there .*; give another file with "
        f"--log-file.\n",
        result.stderr,
    )
    assert not list((workshop.folder / "out").iterdir())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["scene.tif", "labels.gpkg", "polygons.geojson"])
def test_a_log_is_never_appended_to_data(name, workshop, tmp_path):
    data = tmp_path / name
    if name.endswith("geojson"):
        data.write_text('{"type": "FeatureCollection", "features": []}')
    else:
        shutil.copy(workshop.path(name), data)
    before = data.read_bytes()
    words = ["evaluate", workshop.path("map.tif"), "--labels", f"roof={data}"]
    for result in (cli(*words, "--log-file", data), cli("--log-file", data, *words)):
        assert result.exit_code == 1
        assert re.fullmatch(
            f"Error: {data}: is .*, and the log would be appended to .*\n", result.stderr
        )
    assert data.read_bytes() == before
    new = tmp_path / "new.gpkg"
    result = cli("polygonize", workshop.path("map.tif"), "-o", new, "--log-file", new)
    assert "is an input or output of this run" in result.stderr
    assert not new.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_ends_the_log_and_not_the_run(workshop):
    result = cli(*workshop.call("polygonize"), "--log-file", "/dev/full")
    assert result.exit_code == 0
    assert result.stderr == "Warning: /dev/full: the log cannot be written any further.\n"


@pytest.mark.slow
def test_steps_and_the_bar_share_a_terminal(workshop):
    words = [str(word) for word in [*workshop.call("train"), "-v"]]
    text = drawn(80, f"from geodinoseg.cli import main; main({words!r}, standalone_mode=False)")
    frames = re.sub(r"\x1b\[\?25[lh]|\x1b\[K", "", text).replace("\n", "\r").split("\r")
    bars = [frame for frame in frames if frame.startswith("training  [")]
    assert len(bars) > 3
    assert max(map(cells, bars)) < 80
    steps = [line for line in frames if re.match("epoch 1, head: loss", line)]
    assert len(steps) == 1
    # A step replaces the bar in its line, and the bar goes on in the next.
    assert "\r\x1b[Kepoch 1, head: loss" in text


@pytest.mark.parametrize("command", ["train", "segment"])
def test_where_there_is_no_terminal_lines_tell_the_progress(command, workshop, monkeypatch):
    monkeypatch.setattr(bar, "_LINE_S", 0.0)
    result = cli(*workshop.call(command), *(["--tile", 56] if command == "segment" else []))
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{command}ing"[:7])]
    assert len(lines) > 3
    told = {"train": r"head, epoch 1/1, loss \d", "segment": r"[\d.]+ Mpx/s"}[command]
    assert re.search(rf"ing: \d+%, about \d+ s left, {told}", result.stderr)


def test_the_logger_of_the_library_tells_scripts_the_same(workshop, caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="geodinoseg"):
        geodinoseg.segment_scene(
            workshop.path("scene.tif"),
            workshop.model,
            tmp_path / "map.tif",
            polygons=[tmp_path / "map.gpkg"],
            device="cpu",
        )
    records = [record for record in caplog.records if record.name.startswith("geodinoseg.")]
    assert {record.levelname for record in records} == {"INFO"}
    told = [*STEPS["segment"], "assembling 1 parts into", "map.tif is complete", "tracing the poly"]
    assert in_order(told, "\n".join(record.getMessage() for record in records))
