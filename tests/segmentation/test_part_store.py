"""Where parts lie: a folder or a bucket, one as good as the other, and no secret in either."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from bucket_server import KEY, SECRET, bucket_server
from click.testing import CliRunner
from rasters import ROTATED, SmoothModel, write_raster

from geodinoseg.batch.scenes import find_scenes
from geodinoseg.batch.segment_scenes import segment_scenes
from geodinoseg.cli import main
from geodinoseg.cluster.local import local_workers
from geodinoseg.errors import OutputError
from geodinoseg.files.locks import lock_output
from geodinoseg.rasters.retry import DEADLINE_VARIABLE
from geodinoseg.segmentation.parts.part_file import PartWriter
from geodinoseg.segmentation.parts.store import part_store, store_at
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

HEIGHT, WIDTH = 1050, 530  # three parts
SETTINGS = SegmentationSettings(tile_px=56, overlap_px=10)


class KnownModel(SmoothModel):
    fingerprint = "known"

    def __init__(self):
        super().__init__(3, tile_px=56)
        self.calls = 0

    def answer(self, pixels, valid):
        self.calls += 1
        return super().answer(pixels, valid)


class Killed(BaseException):
    """As if the process were no more."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    values = np.random.default_rng(3).integers(0, 240, (1, HEIGHT // 10, WIDTH // 10))
    values = np.kron(values, np.ones((10, 10))).astype(np.uint8)
    folder = tmp_path_factory.mktemp("scene")
    return write_raster(folder / "scene.tif", values, transform=ROTATED, nodata=255)


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory) -> dict[str, bytes]:
    """The bytes of a run whose parts lie beside its output."""
    folder = tmp_path_factory.mktemp("whole")
    segment(scene, folder)
    return written(folder)


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path) -> str:
    """Where parts may go, a place of each kind."""
    if request.param == "folder":
        (tmp_path / "work").mkdir()
        return str(tmp_path / "work")
    return request.getfixturevalue("bucket").address(f"work/{tmp_path.name}")


@pytest.fixture
def maps(tmp_path) -> Path:
    (tmp_path / "maps").mkdir()
    return tmp_path / "maps"


def segment(scene, folder, model=None, **options):
    return segment_scene(
        scene,
        model or KnownModel(),
        folder / "map.tif",
        **{"confidence": True, "settings": SETTINGS} | options,
    )


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def store_of(folder, place):
    return part_store(folder / "map.tif", place)


def stopped_after(count: int, scene, folder, **options) -> None:
    """A run that ended when so many parts were done."""
    finish, seen = PartWriter.finish, []

    def counted(writer):
        if len(seen) == count:
            raise Killed
        seen.append(writer)
        finish(writer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartWriter, "finish", counted)
        with pytest.raises(Killed):
            segment(scene, folder, **options)


def test_parts_lie_there_until_the_map_is_whole(scene, maps, place, whole):
    stopped_after(2, scene, maps, parts=place)
    store = store_of(maps, place)
    assert store.names() == {"manifest.json", "part-00000", "part-00001"}
    assert written(maps) == {}
    segment(scene, maps, parts=place)
    assert written(maps) == whole
    assert store.names() == frozenset()
    assert not store.exists()


def test_parts_that_are_whole_are_not_computed_again(scene, maps, place, whole, caplog):
    untouched, model = KnownModel(), KnownModel()
    segment(scene, maps, untouched, parts=place)
    stopped_after(2, scene, maps, parts=place, overwrite=True)
    with caplog.at_level(logging.INFO):
        segment(scene, maps, model, parts=place, overwrite=True)
    assert "2 of 3 parts were done before" in caplog.text
    assert 0 < model.calls < untouched.calls
    assert written(maps) == whole


@pytest.mark.parametrize("damage", ["cut", "flipped", "swapped", "empty"])
def test_a_damaged_part_is_computed_again(damage, scene, maps, place, whole):
    stopped_after(2, scene, maps, parts=place)
    store = store_of(maps, place)
    with store.open("part-00000") as file, store.open("part-00001") as other:
        data = {"swapped": other.read(), "empty": b""}.get(damage) or file.read()
    if damage == "cut":
        data = data[:-7]
    if damage == "flipped":
        data = data[:90] + bytes([data[90] ^ 4]) + data[91:]
    with store.create("part-00000") as file:
        file.write(data)
    segment(scene, maps, parts=place)
    assert written(maps) == whole


def test_parts_of_another_run_are_refused_and_kept_until_told_otherwise(scene, maps, place, whole):
    stopped_after(2, scene, maps, parts=place)
    before = store_of(maps, place).names()
    with pytest.raises(OutputError, match=r"holds 2 of 3 parts of another run: overlap_px was 10"):
        segment(scene, maps, parts=place, settings=SegmentationSettings(tile_px=56, overlap_px=12))
    assert store_of(maps, place).names() == before
    segment(scene, maps, parts=place, resume=False)
    assert written(maps) == whole


def test_what_somebody_else_keeps_there_is_never_touched(scene, maps, place):
    store = store_of(maps, place)
    if (folder := Path(place)).is_dir():
        (folder / "map.tif.parts").mkdir()
    with store.create("notes.txt") as file:
        file.write(b"mine")
    model = KnownModel()
    for resume in (True, False):
        with pytest.raises(OutputError, match=r"map\.tif\.parts: is not a geodinoseg parts folder"):
            segment(scene, maps, model, parts=place, resume=resume)
    assert model.calls == 0
    with store.open("notes.txt") as file:
        assert file.read() == b"mine"


def test_a_run_that_fails_at_once_leaves_nothing(scene, maps, place):
    stopped_after(0, scene, maps, parts=place)
    assert not store_of(maps, place).names()


def test_many_scenes_keep_their_parts_apart(scene, small_model, tmp_path, place):
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif", np.full((3, 40, 60), ord(name), np.uint8))
    listed = find_scenes([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    settings = SegmentationSettings(tile_px=56, overlap_px=14)
    results = segment_scenes(listed, small_model, tmp_path / "out", settings=settings, parts=place)
    assert [result.status for result in results] == ["done", "done"]
    assert not store_at(place).names()


def test_two_runs_with_one_folder_of_parts_do_not_meet(scene, maps, tmp_path):
    (tmp_path / "work").mkdir()
    busy = lock_output(tmp_path / "work" / "map.tif.parts")
    with busy, pytest.raises(OutputError, match=r"map\.tif\.parts: another geodinoseg"):
        segment(scene, maps, parts=tmp_path / "work")


def test_the_environment_says_how_to_reach_a_bucket(scene, maps, whole, aws, monkeypatch):
    stopped_after(1, scene, maps, parts="s3://maps/plain")
    assert aws.names("plain/") == {
        "plain/map.tif.parts/manifest.json",
        "plain/map.tif.parts/part-00000",
    }
    monkeypatch.delenv("AWS_S3_ENDPOINT")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{aws.endpoint}")
    segment(scene, maps, parts="s3://maps/plain/")
    assert written(maps) == whole
    assert aws.names("plain/") == set()


def test_a_part_that_comes_late_stands_in_nobodys_way(scene, maps, whole, bucket):
    """A worker that was given up may send its part when the map is done and the others are gone."""
    place = bucket.address("late")
    with store_of(maps, place).create("part-00001") as file:
        file.write(b"of a run that is over")
    segment(scene, maps, parts=place)
    assert written(maps) == whole
    assert bucket.names("late/") == set()


def test_parts_in_a_bucket_hold_no_secret_and_no_address(scene, maps, bucket):
    stopped_after(2, scene, maps, parts=bucket.address("open"))
    for name in bucket.names("open/"):
        content = bucket.get(name)
        assert not any(word.encode() in content for word in (KEY, SECRET, "127.0.0.1"))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (
            "ftp://somewhere/runs",
            "parts cannot be stored there; give a folder, or an address that begins",
        ),
        ("https://somewhere/runs", "parts cannot be stored there"),
        ("/vsis3/maps/runs", "parts cannot be stored there"),
        ("s3://", "check the address"),
        ("s3://absent/runs", "there is no such bucket"),
        ("absent-folder", "the folder absent-folder does not exist; make it first"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_any_work(address, told, scene, maps, aws):
    model = KnownModel()
    with pytest.raises(OutputError, match=told):
        segment(scene, maps, model, parts=address)
    assert model.calls == 0
    assert written(maps) == {}


def test_the_command_refuses_such_a_place_in_one_line(scene, small_model, maps, aws):
    arguments = [
        "segment",
        scene,
        "--model",
        small_model,
        "-o",
        maps / "map.tif",
        "--bands",
        "1,1,1",
    ]
    result = CliRunner().invoke(main, [*map(str, arguments), "--parts", "s3://absent/runs"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: s3://absent/runs/map.tif.parts: there is no such bucket")


@pytest.mark.slow
def test_a_server_that_is_gone_is_an_error_in_bounded_time(scene, maps, monkeypatch):
    monkeypatch.setenv(DEADLINE_VARIABLE, "0.1")
    with bucket_server() as server:
        place = server.address("work")
        stopped_after(1, scene, maps, parts=place)
        server.process.kill()
        began = time.monotonic()
        with pytest.raises(
            OutputError, match="cannot be used for parts; check the address"
        ) as error:
            segment(scene, maps, parts=place)
    assert time.monotonic() - began < 30
    assert SECRET not in str(error.value)
    assert written(maps) == {}


@pytest.mark.slow
def test_workers_write_parts_into_a_bucket(scene, maps, whole, bucket):
    place = bucket.address("shared")
    with local_workers(2, device="cpu") as workers:
        with suppress(Killed):
            segment(scene, maps, workers=workers, parts=place, progress=killed_when_some_are_done)
        segment(scene, maps, workers=workers, parts=place)
    assert written(maps) == whole
    assert bucket.names("shared/") == set()


def killed_when_some_are_done(_fraction, message):
    if " 0 of 3 parts" not in message:
        raise Killed


def test_a_manifest_that_is_no_text_is_somebody_elses(scene, maps, place):
    stopped_after(1, scene, maps, parts=place)
    for content in (b"\xff\xfe", b"[" * 100_000, json.dumps({"format": "x"}).encode()):
        with store_of(maps, place).create("manifest.json") as file:
            file.write(content)
        with pytest.raises(OutputError, match="is not a geodinoseg parts folder"):
            segment(scene, maps, parts=place)


def test_what_is_no_file_is_no_part(scene, tmp_path, maps, whole):
    (tmp_path / "work").mkdir()
    stopped_after(2, scene, maps, parts=tmp_path / "work")
    parts = tmp_path / "work" / "map.tif.parts"
    (parts / "part-00000").unlink()
    os.mkfifo(parts / "part-00000")
    (parts / "part-00001").rename(tmp_path / "elsewhere")
    (parts / "part-00001").symlink_to(tmp_path / "elsewhere")
    segment(scene, maps, parts=tmp_path / "work")
    assert written(maps) == whole
    assert (tmp_path / "elsewhere").is_file()
