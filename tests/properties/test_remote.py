"""Scenes on servers: right pixels or one clear error, in bounded time, and no secret anywhere."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import time

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from hypothesis import given, strategies as st
from numpy.testing import assert_array_equal
from range_server import range_server
from rasters import ConstantModel, IdentityModel, write_raster

import geodinoseg
from geodinoseg.cli import main
from geodinoseg.errors import SceneError, one_line
from geodinoseg.polygons.bands import open_rasters
from geodinoseg.rasters.class_raster import open_confidence
from geodinoseg.rasters.retry import DEADLINE_VARIABLE
from geodinoseg.rasters.scene import open_scene
from geodinoseg.rasters.source import RasterSource, bounded_settings
from geodinoseg.redaction import redact, redact_name, redact_path
from geodinoseg.segmentation.plan import make_plan
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.windows import Window

HEIGHT, WIDTH = 410, 333
PIXELS = np.random.default_rng(7).integers(1, 255, (3, HEIGHT, WIDTH), dtype=np.uint8)
FILES = {"deflate": {"compress": "deflate"}, "uncompressed": {}}
PATIENCE_S = 0.8
# Classes in patches; stored uncompressed, so that most of the file lies beyond what a failing
# server still sends.
MAP = np.add.outer(np.arange(HEIGHT) // 90, np.arange(WIDTH) // 120).astype(np.uint8) % 3
MAP[200:260, 40:90] = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    for name, options in FILES.items():
        write_raster(folder / f"{name}.tif", PIXELS, **tiles, **options)
    classes = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(1, HEIGHT, WIDTH) % 4
    write_raster(folder / "classes.tif", classes, **tiles, compress="deflate")
    write_raster(folder / "map.tif", MAP[None], **tiles)
    (folder / "page.tif").write_text("<html>please log in</html>" * 99)
    (folder / "mosaic.vrt").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"/>')
    with range_server(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv(DEADLINE_VARIABLE, str(PATIENCE_S))
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.02")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")


def rows_of(url: str):
    """All pixels, as a run reads them: block row by block row."""
    scene = open_scene(url)
    with scene.reader() as reader:
        windows = [
            Window(col_off=0, row_off=row, width=WIDTH, height=min(128, HEIGHT - row))
            for row in range(0, HEIGHT, 128)
        ]
        return np.concatenate([reader.read(window)[0] for window in windows], axis=1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["ok", "flaky"])
def test_a_server_that_stumbles_gives_the_right_pixels(fault, name, served):
    assert_array_equal(rows_of(served.url(fault, f"{name}.tif")), PIXELS)


@pytest.mark.parametrize("fault", ["dead", "gone", "halves", "short", "stall"])
def test_a_server_that_fails_is_an_error_with_file_and_rows_within_the_deadline(fault, served):
    url, began = served.url(fault, "uncompressed.tif"), time.monotonic()
    with pytest.raises(
        SceneError, match=r"rows \d+ to \d+ cannot be read; .*ry again later"
    ) as caught:
        rows_of(url)
    # The last try may begin just before the deadline.
    assert time.monotonic() - began < PATIENCE_S + 5
    assert str(caught.value).startswith(f"{url}: ")


def test_a_segmentation_of_a_scene_on_a_server_that_stumbles_is_that_of_the_file(served, tmp_path):
    maps = []
    for fault in ("ok", "flaky"):
        url = served.url(fault, "classes.tif")
        raster = geodinoseg.segment_scene(url, IdentityModel(), tmp_path / f"{fault}.tif")
        maps.append(raster.read(Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT)))
    assert_array_equal(maps[0].ravel(), np.arange(HEIGHT * WIDTH, dtype=np.uint8) % 4)
    assert_array_equal(maps[1], maps[0])


def test_an_address_that_expires_is_said_at_once_and_a_new_one_resumes(
    served, tmp_path, monkeypatch
):
    monkeypatch.setenv(DEADLINE_VARIABLE, "60")
    monkeypatch.setattr("geodinoseg.segmentation.plan._CHUNK_TILE_ROWS", 2)
    monkeypatch.setattr("geodinoseg.segmentation.plan._CHUNK_TILES", 4)
    output, began = tmp_path / "map.tif", time.monotonic()
    url = served.url("expires", "classes.tif")
    with pytest.raises(SceneError, match=r"may have expired.*same command with a new address"):
        geodinoseg.segment_scene(f"{url}?sig=old", IdentityModel(), output)
    assert time.monotonic() - began < 20
    assert not output.exists()
    raster = geodinoseg.segment_scene(f"{url}?sig=new", IdentityModel(), output)
    found = raster.read(Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT))
    assert_array_equal(found.ravel(), np.arange(HEIGHT * WIDTH, dtype=np.uint8) % 4)


def test_a_segmentation_of_a_scene_on_a_server_that_fails_leaves_no_map(served, tmp_path):
    url = served.url("dead", "uncompressed.tif")
    model = ConstantModel((0.25, 0.75))
    model.bands = (1, 2, 3)
    with pytest.raises(SceneError, match="cannot be read"):
        geodinoseg.segment_scene(url, model, tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_neighbouring_blocks_are_fetched_together_and_no_folder_is_listed(served):
    served.requests()
    rows_of(served.url("ok", "uncompressed.tif"))
    asked = served.requests()
    blocks = -(-HEIGHT // 128) * -(-WIDTH // 128)
    assert len(asked) < blocks
    assert {path for _, path, _ in asked} == {"/ok/uncompressed.tif"}


def test_a_server_that_knows_no_ranges_is_refused_in_words(served):
    with pytest.raises(SceneError, match="whole files only, not ranges; download the file"):
        open_scene(served.url("whole", "deflate.tif"))


def test_an_address_that_is_wrong_is_refused_at_once(served):
    began = time.monotonic()
    with pytest.raises(SceneError, match=r"cannot be fetched; check the address.*404"):
        open_scene(served.url("ok", "absent.tif"))
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", ["page.tif", "mosaic.vrt"])
def test_what_a_server_sends_must_be_a_plain_raster(name, served, monkeypatch):
    monkeypatch.setenv(DEADLINE_VARIABLE, "0")
    with pytest.raises(SceneError, match=r"is not a readable raster.*--allow-external"):
        open_scene(served.url("ok", name))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ortho.tif", False),
        ("/data/vsicurl/ortho.tif", False),
        ("file:///data/o.tif", False),
        ("zip:///data/a.zip!/o.tif", False),
        ("/vsizip/a.zip/o.tif", False),
        ("/vsimem/o.tif", False),
        ("https://a/o.tif", True),
        ("s3://b/o.tif", True),
        ("gs://b/o.tif", True),
        ("/vsicurl/https://a/o.tif", True),
        ("/vsis3/b/o.tif", True),
        ("zip+s3://b/a.zip!o.tif", True),
        ("/vsizip//vsicurl/https://a/b.zip/o.tif", True),
        ("/vsicurl?url=https%3A%2F%2Fa", True),
        ("/vsis3_streaming/b/o.tif", True),
        ("/vsizip/vsis3/b/a.zip", True),
    ],
)
def test_paths_that_ask_a_server_are_known(path, expected):
    assert RasterSource(path).is_remote is expected


MAP_READERS = {
    "polygonize": lambda path, folder: [path, "-o", str(folder / "map.gpkg")],
    "evaluate": lambda path, folder: [
        path,
        "--labels",
        str(folder.parent / "labels.tif"),
        "-o",
        str(folder / "report.json"),
    ],
    "sample": lambda path, folder: [
        path,
        "-o",
        str(folder / "points.gpkg"),
        "--points",
        "80",
        "--min-per-class",
        "10",
    ],
    "picture": lambda path, folder: [
        str(folder.parent / "labels.tif"),
        path,
        "-o",
        str(folder / "picture.png"),
    ],
    "info": lambda path, folder: [path],
}


@pytest.mark.parametrize("command", MAP_READERS)
def test_a_map_on_a_server_that_stumbles_is_read_as_the_file_is(command, served, tmp_path):
    write_raster(tmp_path / "labels.tif", MAP[None])
    for fault in ("ok", "flaky"):
        (tmp_path / fault).mkdir()
        words = MAP_READERS[command](served.url(fault, "map.tif"), tmp_path / fault)
        result = CliRunner().invoke(main, [command, *words])
        assert result.exit_code == 0, result.stderr
    for path in (tmp_path / "ok").iterdir():
        if path.suffix in {".png", ".json"}:
            assert path.read_bytes() == (tmp_path / "flaky" / path.name).read_bytes()


def test_polygons_of_a_map_on_a_server_are_those_of_the_file(served, tmp_path):
    path = write_raster(tmp_path / "map.tif", MAP[None])
    expected = geodinoseg.polygonize(path)
    found = geodinoseg.polygonize(served.url("flaky", "map.tif"))
    assert_array_equal(found.geometry.to_wkb(), expected.geometry.to_wkb())
    assert_array_equal(found.class_id, expected.class_id)


@pytest.mark.parametrize("command", ["polygonize", "evaluate", "sample", "picture"])
def test_a_map_on_a_server_that_fails_is_one_line_with_rows_and_no_output(
    command, served, tmp_path
):
    write_raster(tmp_path / "labels.tif", MAP[None])
    url, began = served.url("dead", "map.tif"), time.monotonic()
    (tmp_path / "out").mkdir()
    words = MAP_READERS[command](url, tmp_path / "out")
    result = CliRunner().invoke(main, [command, *words])
    # Without a legend in its header the map is read through when it is opened.
    assert result.exit_code == 1
    *tries, line = result.stderr.splitlines()
    assert line.startswith(f"Error: {url}: rows ")
    assert "ry again later, or download the file" in line
    assert all("retrying in" in line for line in tries)
    assert time.monotonic() - began < PATIENCE_S + 5
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("fault", ["flaky", "dead", "stall"])
def test_windows_of_a_map_and_its_confidence_are_right_or_an_error_with_rows(fault, served):
    raster = geodinoseg.open_class_raster(served.url("ok", "map.tif"))
    window = Window(col_off=100, row_off=131, width=200, height=270)
    there = dataclasses.replace(raster, source=RasterSource(served.url(fault, "map.tif")))
    # The values of a map will do for percents.
    sure = dataclasses.replace(raster, confidence_path=served.url(fault, "map.tif"))
    for read in (lambda: there.read(window), lambda: confidence_of(sure, window)):
        if fault == "flaky":
            assert_array_equal(read(), MAP[window.slices])
        else:
            with pytest.raises(SceneError, match=r"rows 131 to 400 cannot be read; .*ry again"):
                read()


def confidence_of(raster, window):
    with open_confidence(raster) as reader:
        return reader.read(window)


def test_a_map_is_read_in_one_thread_whoever_reads_it(served):
    raster = geodinoseg.open_class_raster(served.url("ok", "map.tif"))
    with open_rasters(raster):
        assert rasterio.env.getenv()["GDAL_NUM_THREADS"] == "1"
        assert rasterio.env.getenv()["GDAL_HTTP_ENABLE_ADVISE_READ"] is False


@pytest.mark.parametrize(
    ("left_s", "expected"),
    [(400, (60, 3)), (239, (60, 0)), (20, (20, 0)), (0.2, (1, 0)), (-3, (1, 0))],
)
def test_a_further_try_ends_with_the_deadline(left_s, expected, monkeypatch):
    for name in ("GDAL_HTTP_TIMEOUT", "GDAL_HTTP_MAX_RETRY"):
        monkeypatch.delenv(name)
    with bounded_settings(left_s):
        found = rasterio.env.getenv()
    assert (float(found["GDAL_HTTP_TIMEOUT"]), int(found["GDAL_HTTP_MAX_RETRY"])) == expected


def test_a_server_that_stalls_after_a_fault_is_not_waited_for_beyond_the_deadline(
    served, monkeypatch
):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "20")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    began = time.monotonic()
    with pytest.raises(SceneError, match="cannot be read"):
        rows_of(served.url("tires", "uncompressed.tif"))
    assert time.monotonic() - began < PATIENCE_S + 3


SECRETS = ("hunter2pw", "s3cr3t", "abcdef0123", "AKIAIOSFODNN7EXAMPLE", "bearer-t0ken")
SECRET_PATHS = {
    "https://user:hunter2pw@host.example/a/ortho.tif": "https://host.example/a/ortho.tif",
    "https://user%40x:hunter2pw@host/ortho.tif": "https://host/ortho.tif",
    "https://host/ortho.tif?sig=s3cr3t&se=2030": "https://host/ortho.tif",
    "/vsicurl/https://host/ortho.tif?X-Amz-Signature=abcdef0123": "/vsicurl/https://host/ortho.tif",
    "/vsicurl?header.Authorization=bearer-t0ken&url=https%3A%2F%2Fhost%2Fo.tif": "/vsicurl?...",
    "/vsizip//vsicurl/https://u:hunter2pw@host/a.zip/o.tif": "/vsizip//vsicurl/https://host/a.zip/o.tif",
    "https://host/ortho.tif?token=s3cr3t#part": "https://host/ortho.tif",
    "s3://bucket/ortho.tif": "s3://bucket/ortho.tif",
}


@pytest.mark.parametrize("path", SECRET_PATHS)
def test_a_printable_path_says_where_and_not_how_one_gets_in(path):
    assert redact_path(path) == SECRET_PATHS[path]
    assert redact_name(path) == SECRET_PATHS[path].rpartition("/")[2]
    for message in (f"{path}: cannot be read", f"('{path}') failed", f"see {path}, or {path}."):
        assert not any(secret in redact(message) for secret in SECRETS), redact(message)
    assert redact(f"{path}: is damaged").endswith(": is damaged")


@pytest.mark.parametrize(
    "path",
    ["/data/what?.tif", "C:/maps/a#1.tif", "so=what?sig=1.tif", "ärger & co.tif", "a@b:c.tif"],
)
def test_local_paths_are_printed_as_they_are(path):
    assert redact_path(path) == path


@given(
    user=st.text("abcXYZ019%_-.~!$", min_size=1),
    word=st.text("abcXYZ019%_-.~!$:", min_size=9),
    name=st.text("abcXYZ019_-", min_size=1),
    query=st.text("abcXYZ019=&%+/_-", min_size=9),
)
def test_no_password_or_query_of_any_url_is_printed(user, word, name, query):
    url = f"https://{user}:{word}@host.example/{name}.tif?{query}"
    assert redact_path(url) == f"https://host.example/{name}.tif"
    assert redact(f"{url} failed") == f"https://host.example/{name}.tif failed"


def test_secrets_of_the_environment_and_of_messages_are_hidden(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    text = redact(
        "sent wJalrXUtnFEMI/K7MDENG for AKIAIOSFODNN7EXAMPLE, Authorization: Bearer abc.def"
    )
    assert text == "sent ... for ..., Authorization: ..."
    assert one_line(ValueError("of https://a:b@c/d?e=f.")) == "of https://c/d"
    assert str(SceneError("https://a:b@c/d.tif?e=f: is damaged.")) == "https://c/d.tif: is damaged."
    assert isinstance(pickle.loads(pickle.dumps(SceneError("a"))), SceneError)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "ab/",
        "a://",
        "http://a?",
        ".tif?",
        "x-amz-",
        "sig ",
        "/vsicurl?",
        ":",
        "u@",
        "?=",
        "a ",
    ],
)
def test_however_long_a_message_is_it_is_looked_through_within_seconds(piece):
    text = piece * (300_000 // len(piece))
    began = time.monotonic()
    redact(text)
    redact(f"http://a?{text}x")
    assert time.monotonic() - began < 20, "100,000 letters took 105 s"


def test_of_a_message_that_is_too_long_both_ends_are_kept_and_no_secret():
    text = redact(f"first {'a' * 70_000}?sig=s3cr3t&{'b' * 32_700} last")
    assert text.startswith("first aaa")
    assert text.endswith(" last")
    assert "s3cr3t" not in text
    assert "bb" not in text


def test_a_signed_scene_is_read_and_its_signature_kept_to_oneself(served, tmp_path, caplog):
    url = served.url("secret", "classes.tif") + "?sig=s3cr3t&who=me"
    with caplog.at_level(logging.DEBUG, logger="geodinoseg"):
        raster = geodinoseg.segment_scene(url, IdentityModel(), tmp_path / "map.tif")
    assert raster.tags["GEODINOSEG_SCENE"] == "classes.tif"
    plan, _ = make_plan(url, IdentityModel(), SegmentationSettings())
    facts = CliRunner().invoke(main, ["info", url, "--json"])
    for text in (str(plan), json.dumps(raster.tags), caplog.text, facts.output):
        assert "s3cr3t" not in text
    for path in tmp_path.iterdir():
        assert b"s3cr3t" not in path.read_bytes(), path


@pytest.mark.parametrize("command", ["info", "segment", "picture", "train"])
def test_no_command_prints_the_signature_of_a_scene_that_it_cannot_open(
    command, served, small_model, tmp_path
):
    url = f"{served.url('ok', 'absent.tif')}?sig=s3cr3t"
    write_raster(tmp_path / "map.tif", np.ones((1, 5, 7), np.uint8))
    more = {
        "info": ["--json"],
        "segment": ["--model", str(small_model), "-o", str(tmp_path / "m.tif"), "--json"],
        "picture": [str(tmp_path / "map.tif"), "-o", str(tmp_path / "p.png"), "--json"],
        "train": ["--labels", "a.gpkg", "-o", str(tmp_path / "m.model"), "--json"],
    }[command]
    result = CliRunner().invoke(main, [command, url, *more])
    assert result.exit_code == 1
    assert "absent.tif" in result.output
    assert "s3cr3t" not in result.output + result.stderr


@pytest.mark.parametrize("scheme", ["s3://", "/vsis3/"])
def test_a_scene_in_a_bucket_is_read(scheme, aws, tmp_path):
    aws.put("ortho.tif", write_raster(tmp_path / "o.tif", PIXELS, compress="deflate"))
    assert_array_equal(rows_of(f"{scheme}maps/ortho.tif"), PIXELS)


def test_an_object_that_is_not_there_is_refused_and_no_key_is_said(aws, tmp_path):
    aws.put("ortho.tif", write_raster(tmp_path / "o.tif", PIXELS))
    result = CliRunner().invoke(main, ["info", "s3://maps/absent.tif"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: s3://maps/absent.tif: cannot be fetched")
    assert "AKIA" not in result.stderr
    assert "wJalr" not in result.stderr


def test_a_map_of_a_scene_in_a_bucket_names_the_scene_alone(aws, tmp_path):
    classes = np.arange(60 * 70, dtype=np.uint8).reshape(1, 60, 70) % 4
    aws.put("classes.tif", write_raster(tmp_path / "c.tif", classes))
    geodinoseg.segment_scene("s3://maps/classes.tif", IdentityModel(), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.tags()["GEODINOSEG_SCENE"] == "classes.tif"
        assert_array_equal(dataset.read(), classes)
