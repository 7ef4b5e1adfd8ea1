"""Many scenes in one call: a map each, a journal, and no failure that stops the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.crs import CRS
from rasters import ROTATED, SmoothModel, write_raster

from geodinoseg.batch.scenes import ListedScene, OutputNames, find_scenes, planned_files
from geodinoseg.batch.segment_scenes import segment_scenes
from geodinoseg.cli import main
from geodinoseg.errors import OutputError, SceneError
from geodinoseg.files.journal import JOURNAL, open_journal
from geodinoseg.model.folder import load_model
from geodinoseg.polygons.polygonize import polygonize
from geodinoseg.polygons.settings import PolygonSettings
from geodinoseg.polygons.stream import PolygonOptions
from geodinoseg.polygons.style_map import style_map
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.windows import Window

SETTINGS = SegmentationSettings(tile_px=56, overlap_px=8)
WHOLE = Window(col_off=0, row_off=0, width=70, height=90)
NAMES = OutputNames(confidence="{stem}_confidence.tif", polygons=("{stem}.gpkg",))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three scenes, the second broken."""
    place = tmp_path / "scenes"
    place.mkdir()
    for index, name in enumerate("abc"):
        pixels = np.random.default_rng(index).integers(1, 250, (3, 90 + index, 70))
        write_raster(place / f"{name}.tif", pixels.astype(np.uint8), transform=ROTATED, nodata=0)
    (place / "b.tif").write_bytes(b"II*\0 no raster")
    return place


@pytest.fixture
def run(folder, small_model, tmp_path):
    def run(**options):
        wanted = {"names": NAMES, "settings": SETTINGS} | options
        found = segment_scenes(find_scenes([str(folder)]), small_model, tmp_path / "maps", **wanted)
        return [result.status for result in found]

    return run


def mend(folder: Path) -> None:
    pixels = np.random.default_rng(7).integers(1, 250, (3, 60, 70)).astype(np.uint8)
    (folder / "b.tif").unlink()
    write_raster(folder / "b.tif", pixels, transform=ROTATED, nodata=0)


def outputs(tmp_path: Path) -> dict[str, tuple[int, bytes]]:
    paths = sorted((tmp_path / "maps").glob("*.tif"))
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_a_broken_scene_does_not_stop_the_others_and_is_tried_again(
    run, folder, small_model, tmp_path
):
    told = []
    assert run(tell=told.append) == ["done", "failed", "done"]
    assert "b.tif: is not a readable raster" in told[1].error
    first = outputs(tmp_path)
    assert sorted(first) == ["a.tif", "a_confidence.tif", "c.tif", "c_confidence.tif"]
    assert (tmp_path / "maps" / "a.gpkg").exists()
    mend(folder)
    assert run() == ["skipped", "done", "skipped"]
    assert outputs(tmp_path).items() >= first.items()
    alone = tmp_path / "alone"
    alone.mkdir()
    segment_scene(
        folder / "c.tif",
        small_model,
        alone / "c.tif",
        settings=SETTINGS,
        confidence=alone / "c_confidence.tif",
    )
    assert (alone / "c.tif").read_bytes() == first["c.tif"][1]


def test_what_was_done_is_not_skipped_when_anything_is_another(run, folder, tmp_path):
    mend(folder)
    assert run() == ["done"] * 3
    assert run() == ["skipped"] * 3
    # Other settings: the old maps are in the way, and are not replaced unasked.
    assert run(settings=SegmentationSettings(tile_px=56, overlap_px=9)) == ["failed"] * 3
    assert run(polygon_settings=PolygonSettings(min_area_m2=30)) == ["failed"] * 3
    assert run() == ["skipped"] * 3
    (tmp_path / "maps" / "a.tif").unlink()
    assert run() == ["done", "skipped", "skipped"]
    assert run(overwrite=True) == ["done"] * 3
    assert run() == ["skipped"] * 3


def test_scenes_may_be_named_and_the_folder_a_string(run, folder, small_model, tmp_path):
    mend(folder)
    assert run() == ["done"] * 3
    maps = str(tmp_path / "maps")
    for scenes in (
        str(folder),
        [str(path) for path in folder.iterdir()],
        list(find_scenes(folder)),
    ):
        found = segment_scenes(scenes, str(small_model), maps, names=NAMES, settings=SETTINGS)
        assert [result.status for result in found] == ["skipped"] * 3
    twice = segment_scenes(
        [folder / "a.tif"] * 2, small_model, maps, names=NAMES, settings=SETTINGS
    )
    assert len(twice) == 1


def test_a_loaded_model_is_known_by_its_fingerprint(folder, small_model, tmp_path):
    model = load_model(small_model, device="cpu")

    def statuses(model):
        scenes = [folder / "a.tif", folder / "c.tif"]
        found = segment_scenes(scenes, model, tmp_path / "maps", settings=SETTINGS)
        return [result.status for result in found]

    assert statuses(model) == ["done"] * 2
    assert statuses(model) == ["skipped"] * 2
    assert statuses(dataclasses.replace(model, temperature=2.0)) == ["failed"] * 2
    (tmp_path / "alone").mkdir()
    segment_scene(folder / "a.tif", small_model, tmp_path / "alone" / "a.tif", settings=SETTINGS)
    pixels = [
        open_class_raster(tmp_path / name / "a.tif").read(WHOLE) for name in ("maps", "alone")
    ]
    np.testing.assert_array_equal(*pixels)


def test_a_model_that_nothing_identifies_is_never_taken_for_the_same(folder, tmp_path):
    model = SmoothModel(3, tile_px=56)
    assert not hasattr(model, "fingerprint")
    for expected in ("done", "failed"):
        (found,) = segment_scenes(folder / "a.tif", model, tmp_path / "maps", settings=SETTINGS)
        assert found.status == expected


def test_polygons_of_a_batch_are_drawn_as_those_of_polygonize(run, folder, tmp_path):
    (folder / "b.tif").unlink()
    settings = PolygonSettings(min_area_m2=40, fill_holes_m2=20, simplify_px=1.5)
    assert run(polygon_settings=settings) == ["done"] * 2
    assert run(polygon_settings=settings) == ["skipped"] * 2
    expected = polygonize(
        tmp_path / "maps" / "a.tif",
        min_area_m2=40,
        simplify_px=1.5,
        options=PolygonOptions(fill_holes_m2=20),
    )
    found = pyogrio.read_dataframe(tmp_path / "maps" / "a.gpkg", layer="a")
    assert found.geometry.tolist() == expected.geometry.tolist()
    with pytest.raises(OutputError, match="polygon settings require a name for polygons"):
        run(polygon_settings=settings, names=OutputNames())


class Killed(BaseException):
    pass


def kill(*_, **__):
    raise Killed


@pytest.mark.parametrize(
    "at",
    ["polygons.polygonize.write_map_polygons", "batch.segment_scenes.file_facts"],
)
def test_a_run_that_is_killed_goes_on_with_what_is_its_own(run, folder, tmp_path, monkeypatch, at):
    mend(folder)
    with monkeypatch.context() as patch:
        patch.setattr(f"geodinoseg.{at}", kill)
        with pytest.raises(Killed):
            run()
    assert (tmp_path / "maps" / "a.tif").exists()
    before = outputs(tmp_path)
    with (tmp_path / "maps" / JOURNAL).open("ab") as file:
        file.write(b'{"output": "a.tif", "stat')  # a line that was cut off
    assert run() == ["done"] * 3
    assert run() == ["skipped"] * 3
    assert outputs(tmp_path)["a.tif"][1] == before["a.tif"][1]


def test_a_file_of_somebody_else_is_not_replaced(run, folder, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.tif").write_text("mine")
    assert run() == ["failed", "failed", "done"]
    assert run() == ["failed", "failed", "skipped"]
    assert (tmp_path / "maps" / "a.tif").read_text() == "mine"


@pytest.mark.parametrize("name", ["a.qml", "a.tif.ovr", "a_confidence.tif.aux.xml", "a.tfw"])
def test_a_side_file_of_somebody_else_is_not_replaced(run, folder, tmp_path, name):
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / name).write_text("mine")
    for _ in range(2):
        assert run()[0] == "failed"
    assert (maps / name).read_text() == "mine"
    assert not (maps / "a.tif").exists()
    assert run(overwrite=True)[0] == "done"


def test_a_style_that_was_edited_is_not_replaced_with_what_is_lost(run, folder, tmp_path):
    run()
    maps = tmp_path / "maps"
    (maps / "a.qml").write_text("mine")
    assert run()[0] == "skipped"
    for name in ("a.tif", "a_confidence.tif", "a.gpkg"):
        (maps / name).unlink()
    assert run()[0] == "failed"
    assert (maps / "a.qml").read_text() == "mine"


def test_a_map_that_was_recoloured_is_skipped_and_belongs_to_the_batch(run, folder, tmp_path):
    run()
    maps = tmp_path / "maps"
    (tmp_path / "new.txt").write_text("0 #0000ff\n")
    before = (maps / "a.tif").read_bytes()
    style_map(maps / "a.tif", tmp_path / "new.txt")
    after = (maps / "a.tif").read_bytes()
    assert after != before
    assert run() == ["skipped", "failed", "skipped"]
    assert (maps / "a.tif").read_bytes() == after
    (maps / "a.gpkg").unlink()
    assert run()[0] == "done"
    with open_journal(maps), pytest.raises(OutputError, match="is writing it"):
        style_map(maps / "a.tif", tmp_path / "new.txt")


def test_a_map_whose_main_files_are_lost_is_made_again(run, folder, tmp_path):
    run()
    for name in ("a.tif", "a_confidence.tif", "a.gpkg"):
        (tmp_path / "maps" / name).unlink()
    assert run() == ["done", "failed", "skipped"]


def test_a_file_that_somebody_put_in_place_of_a_failed_map_is_not_replaced(run, folder, tmp_path):
    assert run() == ["done", "failed", "done"]
    mend(folder)
    (tmp_path / "maps" / "b.tif").write_text("mine")
    assert run() == ["skipped", "failed", "skipped"]
    assert (tmp_path / "maps" / "b.tif").read_text() == "mine"


def test_a_map_that_is_shown_with_a_file_of_another_is_not_skipped(run, folder, tmp_path):
    run()
    maps = tmp_path / "maps"
    (maps / "a.tif.ovr").write_bytes((maps / "c.tif").read_bytes())
    told = []
    assert run(tell=told.append) == ["failed", "failed", "skipped"]
    assert "a.tif.ovr beside it" in told[0].error
    (maps / "a.tif.ovr").unlink()
    assert run() == ["skipped", "failed", "skipped"]


def test_a_map_that_was_damaged_since_is_not_taken_for_whole(run, folder, tmp_path):
    run()
    path = tmp_path / "maps" / "a.tif"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run() == ["failed", "failed", "skipped"]
    assert run(overwrite=True) == ["done", "failed", "done"]


def test_a_file_that_was_lost_is_made_again_beside_those_that_are_whole(run, tmp_path):
    run()
    lost = tmp_path / "maps" / "a.gpkg"
    before = {p.name: p.read_bytes() for p in lost.parent.iterdir() if p.suffix != ".jsonl"}
    lost.unlink()
    assert run() == ["done", "failed", "skipped"]
    assert before == {p.name: p.read_bytes() for p in lost.parent.iterdir() if p.suffix != ".jsonl"}


def test_a_folder_that_was_copied_is_still_whole(run, folder, tmp_path):
    run()
    for path in (tmp_path / "maps").iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    assert run() == ["skipped", "failed", "skipped"]


def test_two_runs_do_not_share_a_journal(run, tmp_path):
    (tmp_path / "maps").mkdir()
    with open_journal(tmp_path / "maps"), pytest.raises(OutputError, match="another geodinoseg"):
        run()


def test_a_foreign_journal_is_left_alone(run, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / JOURNAL).write_text('{"format": "other"}\n')
    with pytest.raises(OutputError, match="is not a geodinoseg journal"):
        run()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.tif", "y/a.tif"], OutputNames()),
        (["x/a.tif", "x/b.tif"], OutputNames(class_raster="map.tif")),
        (["x/a.tif"], OutputNames(polygons=("{stem}.shp",))),
        (["x/a.tif", "x/a_p.tif"], OutputNames(polygons=("{stem}_p.shp",))),
    ],
)
def test_outputs_that_clash_are_refused_before_any_work(paths, names, tmp_path):
    scenes = [ListedScene(path=path, stem=Path(path).stem) for path in paths]
    with pytest.raises(OutputError, match=r"would both write it, or share its style"):
        planned_files(scenes, tmp_path / "maps", names)
    planned_files(
        scenes,
        tmp_path / "maps",
        OutputNames(class_raster="{parent}_{stem}.tif", polygons=("{parent}_{stem}.gpkg",)),
    )
    assert list(tmp_path.iterdir()) == []


def test_an_output_stays_in_its_folder(tmp_path):
    scenes = [ListedScene(path="a.tif", stem="a")]
    with pytest.raises(OutputError, match="is not a file name"):
        planned_files(scenes, tmp_path, OutputNames(class_raster="../{stem}.tif"))


def test_scenes_are_found_by_folder_pattern_and_list_each_once(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "notes.txt").write_text("")
    Path("list.txt").write_text("# two of them\nscenes/a.tif\n\n  scenes/c.tif\n")
    names = ["@list.txt", "scenes", "scenes/[ab].tif", "https://example.org/x/far.tif?key=1"]
    found = find_scenes(names)
    assert [scene.stem for scene in found] == ["a", "c", "b", "far"]
    assert [s.stem for s in find_scenes([], list_file=Path("list.txt"))] == ["a", "c"]
    for nothing in (["scenes/*.jp2"], [], ["@absent.txt"]):
        with pytest.raises(SceneError):
            find_scenes(nothing)


def test_secrets_of_an_address_stay_out_of_the_journal():
    for prefix in ("", "/vsicurl/"):
        path = f"{prefix}https://me:word@example.org/x/far.tif?key=1#here"
        scene = ListedScene(path=path, stem="far")
        assert scene.public_name == f"{prefix}https://example.org/x/far.tif"
    assert ListedScene(path="a?b.tif", stem="a").public_name == "a?b.tif"


def test_a_stac_item_is_its_raster(tmp_path):
    item = {
        "type": "Feature",
        "id": "S2/A 1",
        "assets": {
            "visual": {"href": "./visual.tif", "type": "image/tiff; application=geotiff"},
            "scl": {"href": "https://example.org/scl.tif", "type": "image/tiff"},
            "thumbnail": {"href": "t.png", "type": "image/png"},
        },
    }
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    (found,) = find_scenes([str(path)], asset="visual")
    assert (found.path, found.stem) == (str(tmp_path / "visual.tif"), "S2_A_1")
    (found,) = find_scenes([str(path)], asset="scl")
    assert found.path == "https://example.org/scl.tif"
    with pytest.raises(SceneError, match="--asset: visual, scl"):
        find_scenes([str(path)])
    path.write_text("[]")
    with pytest.raises(SceneError, match="is not a readable STAC item"):
        find_scenes([str(path)])


def segment(*arguments):
    return CliRunner().invoke(main, ["segment", *map(str, arguments)])


def test_the_command_ends_with_a_summary_and_the_list_of_what_failed(folder, small_model, tmp_path):
    wanted = [
        folder,
        "--model",
        small_model,
        "--output-dir",
        tmp_path / "maps",
        "--tile",
        56,
        "--polygons",
        ".gpkg",
        "--confidence",
        "_sure.tif",
    ]
    result = segment(*wanted)
    assert result.exit_code == 1
    assert "2 done, 0 skipped, 1 failed" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: 1 of 3 scenes failed: ")
    assert "b.tif" in line
    assert {p.name for p in (tmp_path / "maps").iterdir()} >= {"a.tif", "a_sure.tif", "a.gpkg"}
    (folder / "b.tif").unlink()
    result = segment(*wanted, "--json")
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["status"] for e in events if e["event"] == "scene"] == ["skipped", "skipped"]
    assert events[-1]["result"]["scenes"] == {"done": 0, "skipped": 2, "failed": 0}


def test_a_dry_run_lists_the_plan_of_each_scene_and_the_totals(folder, small_model, tmp_path):
    mend(folder)
    wanted = [folder, "--model", small_model, "--output-dir", tmp_path / "maps", "--dry-run"]
    result = segment(*wanted)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("px overlap") == 3
    assert "total     3 scenes" in result.stdout
    assert not (tmp_path / "maps").exists()
    events = [json.loads(line) for line in segment(*wanted, "--json").stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "plan", "plan", "done"]
    assert events[-1]["result"]["output_bytes"] == sum(
        event["output_bytes"] for event in events[:-1]
    )


def test_a_scene_whose_polygons_have_no_place_fails_before_its_run_and_in_a_dry_run(
    folder, small_model, tmp_path
):
    mend(folder)
    with rasterio.open(folder / "b.tif", "r+") as dataset:
        dataset.crs = CRS.from_user_input("IAU_2015:49910")
    wanted = [folder, "--model", small_model, "--output-dir", tmp_path / "maps"]
    wanted += ["--polygons", "_v.geojson", "--polygons", "_v.gpkg"]
    for more in (["--dry-run"], []):
        result = CliRunner().invoke(main, ["segment", *map(str, [*wanted, *more])])
        assert result.exit_code == 1
        assert (
            "b_v.geojson: GeoJSON is in longitude and latitude on the earth, and no"
            in result.output
        )
        assert (tmp_path / "maps").exists() == (more == [])
    names = {path.name for path in (tmp_path / "maps").glob("*.geojson")}
    assert names == {"a_v.geojson", "c_v.geojson"}
    assert not (tmp_path / "maps" / "b.tif").exists()


def test_a_dry_run_over_a_broken_scene_tells_of_the_others_and_fails(folder, small_model, tmp_path):
    wanted = [folder, "--model", small_model, "--output-dir", tmp_path / "maps", "--dry-run"]
    result = segment(*wanted)
    assert result.exit_code == 1
    assert result.stdout.count("px overlap") == 2
    assert f"failed: {folder / 'b.tif'}: " in result.stdout
    assert "total     2 scenes" in result.stdout
    assert "Error: 1 of 3 scenes cannot be segmented: " in result.stderr
    events = [json.loads(line) for line in segment(*wanted, "--json").stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "scene", "plan", "error"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["a.tif"], "Missing option '-o'"),
        (["a.tif", "b.tif", "-o", "map.tif"], "-o takes one scene, not 2: give --output-dir"),
        (["a.tif", "-o", "map.tif", "--output-dir", "maps"], "give one of them"),
        (
            ["a.tif", "-o", "map.tif", "--asset", "visual"],
            "--asset has no effect without --output-dir",
        ),
        (["-o", "map.tif"], "Missing argument 'SCENE'"),
        (["a.tif", "-o", "m.tif", "--workers", "2", "--scheduler", "x"], "give one of them"),
    ],
)
def test_calls_that_cannot_be_meant_are_usage_errors(options, said):
    result = segment("--model", "x.model", *options)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--output-dir", "missing/maps"], "the folder missing does not exist"),
        (["--name-template", "{stem}.png"], "{stem}.png: the name must end in .tif or .tiff"),
        (["--name-template", "{name}.tif"], "{name} is not a placeholder; use {stem} and {parent}"),
        (["--confidence", "_confidence.png"], "the name must end in .tif or .tiff"),
        (["--polygons", ".gpk"], "{stem}.gpk: the name must end in .gpkg or"),
        (["--bands", "1,2"], "--bands gives 2 bands"),
        (["--output-dir", "scenes", "--overwrite"], "a.tif: is one of the scenes"),
    ],
)
def test_what_all_scenes_would_fail_of_is_said_once_and_at_once(
    folder, small_model, tmp_path, monkeypatch, options, told
):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    wanted = ["segment", folder, "--model", small_model, "--output-dir", "maps", *options]
    ended = CliRunner().invoke(main, [str(argument) for argument in wanted])
    assert ended.exit_code == 1
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "maps").exists()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_list_may_come_from_windows_and_quote_its_names(folder, tmp_path):
    (folder / "b c.tif").write_bytes(b"")
    names = [f'"{folder / "b c.tif"}"', "# a comment", "", f"  {folder / 'a.tif'}  "]
    (tmp_path / "list.txt").write_bytes(("\ufeff" + "\r\n".join(names)).encode())
    listed = find_scenes([f"@{tmp_path / 'list.txt'}"])
    assert [scene.stem for scene in listed] == ["b c", "a"]
