"""The events of `--json`: each fits the schema, and the last one says how the run ended."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from commands import COMMANDS, call, cli, events
from json_schema import faults
from rasters import write_raster

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((files("geodinoseg.cli") / "events.schema.json").read_text())


def told(*words):
    """The events of a run, each of which fits the schema; the last one alone ends it."""
    result = cli(*words, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    found = events(result)
    for event in found:
        assert not faults(event, SCHEMA, SCHEMA), event
    assert [event["event"] in {"done", "error"} for event in found] == [False] * (
        len(found) - 1
    ) + [True]
    last = found[-1]
    assert last.get("exit_code", 0) == result.exit_code
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == ([f"Error: {last['message']}"] if result.exit_code else [])
    return found


def done(*words):
    """The last event of a run that succeeds."""
    last = told(*words)[-1]
    assert (last["event"], last["command"]) == ("done", words[0]), last
    return last


@pytest.mark.parametrize("command", COMMANDS)
def test_the_last_event_holds_outputs_and_result(command, workshop):
    words = workshop.call(command)
    last = done(*words)
    in_place = [f"{words[1]}", f"{words[1]}.aux.xml", f"{words[1].with_suffix('.qml')}"]
    written = [str(words[words.index("-o") + 1])] if "-o" in words else []
    assert last["outputs"] == (in_place if command == "style" else written)
    assert last["result"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", ["--no-such-option", "file"])
def test_the_last_event_of_a_run_that_fails_is_the_error(command, fault, tmp_path):
    words = [command, fault] if fault.startswith("--") else call(command, str(tmp_path / "no.tif"))
    assert [event["event"] for event in told(*words)] == ["error"]


@pytest.mark.parametrize("words", [[], ["melt"], ["--no-such-option"], ["info", "a", "b"]])
def test_a_wrong_use_is_an_event(words):
    (event,) = told(*words)
    assert event["exit_code"] == 2


def test_a_file_called_json_asks_for_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli("info", "--", "--json")
    assert (result.exit_code, result.stdout) == (1, "")


def test_warnings_are_events_too(workshop, tmp_path):
    scene = write_raster(tmp_path / "deep.tif", np.full((3, 40, 50), 300, np.uint16))
    words = ["segment", scene, "--model", workshop.model, "-o", workshop.output("map.tif")]
    result = cli(*words, "--json")
    warnings = [event["message"] for event in events(result) if event["event"] == "warning"]
    assert f"{scene}: has pixels of type uint16" in warnings[0]
    assert result.stderr.splitlines() == [f"Warning: {message}" for message in warnings]
    workshop.clear()
    told(*words)


def test_a_segmentation_ends_with_what_info_says_of_its_map(workshop):
    output = workshop.output("map.tif")
    result = done(*workshop.call("segment"))["result"]
    assert result == done("info", output)["result"]
    assert (result["kind"], result["width_px"], result["height_px"]) == ("class_raster", 300, 260)
    assert [c["name"] for c in result["classes"]] == ["field", "roof", "water"]
    assert 0 <= result["seams"]["disagreement"] <= 1
    assert 0 < result["seams"]["straight"]["p_value"] <= 1


@pytest.mark.slow
def test_a_training_ends_with_what_info_says_of_its_model(workshop):
    result = done(*workshop.call("train"))["result"]
    assert result == done("info", workshop.output("new.model"))["result"]
    assert result["kind"] == "model"
    assert 0 < result["scores"]["mean_iou"] < 1
    assert result["training"]["epochs"]


def test_info_gives_numbers(workshop, tmp_path):
    facts = done("info", workshop.path("scene.tif"))["result"]
    assert (facts["kind"], facts["width_px"], facts["height_px"]) == ("scene", 300, 260)
    assert facts["pixel_size_m"] == pytest.approx(0.5918, abs=1e-4)
    assert (facts["nodata"], facts["possible_class_ids"]) == ([None] * 3, None)
    bare = write_raster(
        tmp_path / "s.tif", np.zeros((1, 7, 5), np.float32), crs=None, transform=None, nodata=np.nan
    )
    facts = done("info", bare)["result"]
    assert (facts["crs"], facts["pixel_size_m"], facts["nodata"]) == (None, None, [None])
    ids = write_raster(tmp_path / "ids.tif", np.array([[[3, 5, 5]]], np.uint8))
    assert done("info", ids)["result"]["possible_class_ids"] == [3, 5]


def test_dry_runs_end_with_the_plan(workshop):
    plan = done(*workshop.call("segment"), "--dry-run")["result"]
    assert plan["output_bytes"] == 260 * 300
    plan = done(*workshop.call("train"), "--dry-run")["result"]
    assert (plan["epochs_of_each"], plan["stages"]) == ([1, 1], ["head", "fused"])
    assert not list((workshop.folder / "out").iterdir())


def test_many_scenes_end_with_their_numbers(workshop, tmp_path):
    for name in ("a.tif", "b.tif"):
        shutil.copy(workshop.path("scene.tif"), tmp_path / name)
    (tmp_path / "c.tif").write_text("no raster")
    words = ["segment", tmp_path, "--model", workshop.model]
    words += ["--output-dir", workshop.folder / "out", "--tile", 112]
    found = told(*words, "--dry-run")
    assert [event["event"] for event in found] == ["plan", "plan", "scene", "error"]
    assert found[-1]["result"]["scenes"] == 2
    assert found[-1]["result"]["failed"] == [str(tmp_path / "c.tif")]
    last = told(*words)[-1]
    assert last["result"] == {
        "scenes": {"done": 2, "skipped": 0, "failed": 1},
        "failed": [str(tmp_path / "c.tif")],
    }
    assert len(last["outputs"]) == 2
    (tmp_path / "c.tif").unlink()
    assert done(*words)["result"]["scenes"] == {"done": 0, "skipped": 2, "failed": 0}
    assert done(*words, "--dry-run")["result"]["scenes"] == 2


def test_the_docs_name_every_event():
    kinds = set()
    for entry in SCHEMA["oneOf"]:
        kind = SCHEMA["$defs"][entry["$ref"].rpartition("/")[2]]["properties"]["event"]
        kinds |= set(kind.get("enum", [kind.get("const")]))
    text = (DOCS / "command_line.md").read_text()
    assert all(f"| `{kind}` |" in text for kind in kinds)


def test_the_validator_finds_faults():
    good = {"event": "progress", "fraction": 0.5, "message": "a"}
    assert not faults(good, SCHEMA, SCHEMA)
    wrong = [{"fraction": 2}, {"fraction": True}, {"message": None}, {"event": "x"}, {"more": 1}]
    for change in wrong:
        assert faults(good | change, SCHEMA, SCHEMA), change
    assert faults({"event": "progress", "fraction": 0.5}, SCHEMA, SCHEMA)
