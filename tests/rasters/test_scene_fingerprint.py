"""What a scene is known by: it changes when the pixels do, and not when the place does."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest
from rasters import NORTH_UP, ConstantModel, write_raster

from geodinoseg.errors import SceneError
from geodinoseg.rasters import scene_fingerprint as module
from geodinoseg.rasters.scene import open_scene
from geodinoseg.rasters.scene_fingerprint import scene_fingerprint
from geodinoseg.segmentation.segment import segment_scene


def identity(path, **options):
    return json.dumps(scene_fingerprint(open_scene(path, **options)))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 200, (2, 130, 170), dtype=np.uint8)


def test_a_copy_is_the_same_scene_and_every_pixel_counts(tmp_path, pixels):
    first = write_raster(tmp_path / "a.tif", pixels)
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(first, tmp_path / "elsewhere" / "a.tif")
    os.utime(copy, (0, 0))
    assert identity(first) == identity(copy)
    pixels[1, -1, 0] ^= 1
    assert identity(write_raster(tmp_path / "elsewhere" / "a.tif", pixels)) != identity(first)


OTHER_SCENES = {
    "bands": (2, 1),
    "dtype": np.dtype(np.int16),
    "nodata": (0.0, None),
    "scales": (1.0, 2.0),
    "offsets": (0.0, -0.1),
    "validity": ("alpha",),
    "alpha_band": 2,
    "block_shape": (7, 9),
}
NOT_IN_THE_HEADER = {
    "names": "change no pixel",
    "nodata_override": "its value is that of nodata",
    "source": "its path, which may change, and its content, which is looked at apart",
    "file_dtypes": "those of the bands that are read are in dtype; the others only give a warning",
    "geobox": "its parts, see the test of a copy on another place",
}


def test_every_field_of_a_scene_is_in_its_header_or_looked_at_apart(tmp_path, pixels):
    scene = open_scene(write_raster(tmp_path / "a.tif", pixels))
    names = {field.name for field in dataclasses.fields(scene)}
    assert OTHER_SCENES.keys() | NOT_IN_THE_HEADER.keys() == names
    seen = [scene_fingerprint(scene)["header"]]
    for name, value in OTHER_SCENES.items():
        other = dataclasses.replace(scene, **{name: value})
        seen.append(scene_fingerprint(other)["header"])
    assert len(set(seen)) == len(seen)


def test_a_copy_on_another_place_is_another_scene(tmp_path, pixels):
    here = identity(write_raster(tmp_path / "a.tif", pixels))
    for place in ({"transform": NORTH_UP}, {"crs": "EPSG:32634"}, {"crs": None}):
        assert identity(write_raster(tmp_path / "a.tif", pixels, **place)) != here


@pytest.mark.parametrize("how", ["written", "replaced", "removed"])
def test_a_scene_that_changes_while_it_is_read_makes_no_map(tmp_path, pixels, how):
    path = write_raster(tmp_path / "a.tif", pixels)
    data = path.read_bytes()

    class Editor(ConstantModel):
        """Somebody exports the scene again, meanwhile."""

        fingerprint, bands = "editor", (1, 2)

        def answer(self, pixels, valid):
            if how != "written":
                path.rename(tmp_path / "old.tif")
            if how != "removed":
                path.write_bytes(data[:-1] + b"x")
            return super().answer(pixels, valid)

    with pytest.raises(SceneError, match=r"a\.tif: .*changed while it was read") as caught:
        segment_scene(path, Editor((0.5, 0.5), tile_px=256), tmp_path / "map.tif")
    assert "--no-resume" in str(caught.value)
    assert not list(tmp_path.glob("map*"))


def test_what_is_read_of_it_counts(tmp_path, pixels):
    path = write_raster(tmp_path / "a.tif", pixels)
    found = {identity(path), identity(path, bands=(2, 1)), identity(path, nodata=3)}
    assert len(found) == 3


@pytest.mark.parametrize("at", ["middle", "end", "time"])
def test_of_a_large_file_samples_and_time_count(tmp_path, pixels, monkeypatch, at):
    monkeypatch.setattr(module, "_READ_WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "_SAMPLE_BYTES", 64)
    path = write_raster(tmp_path / "a.tif", pixels)
    times = path.stat()
    before = identity(path)
    assert identity(path) == before
    data = bytearray(path.read_bytes())
    place = {"middle": (len(data) - 64) // 2, "end": len(data) - 1}.get(at)
    if place is not None:
        data[place] ^= 1
        path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + (at == "time")))
    assert identity(path) != before


def test_the_files_of_a_mosaic_and_its_mask_count(tmp_path, pixels):
    source = write_raster(tmp_path / "source.tif", pixels)
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(
        f"""<VRTDataset rasterXSize="170" rasterYSize="130"><VRTRasterBand dataType="Byte" band="1">
        <SimpleSource><SourceFilename relativeToVRT="1">{source.name}</SourceFilename>
        <SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
    )
    before = identity(mosaic)
    pixels[0, 5, 5] ^= 1
    write_raster(source, pixels)
    assert identity(mosaic) != before


def test_a_raster_in_an_archive_is_known_by_pixels(tmp_path, pixels):
    found = []
    for change in (0, 1):
        pixels[0, 0, 0] ^= change
        folder = tmp_path / str(change)
        folder.mkdir()
        write_raster(folder / "a.tif", pixels)
        archive = shutil.make_archive(tmp_path / f"z{change}", "zip", folder)
        found.append(identity(f"/vsizip/{archive}/a.tif"))
        assert identity(f"/vsizip/{archive}/a.tif") == found[-1]
    assert found[0] != found[1]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path, pixels):
    path = write_raster(tmp_path / "a.tif", pixels)
    scene = open_scene(path)

    class Broken:
        def open(self, *_):
            raise OSError(5, "Input/output error")

        def stat(self):
            return path.stat()

        def __str__(self):
            return str(path)

    with pytest.raises(SceneError, match=r"a\.tif: cannot be read \(.*Input/output error\)"):
        module._file_facts(Broken())
    assert scene_fingerprint(scene)


@pytest.fixture
def server():
    """A server that answers HEAD alone, with what is in `headers`."""

    class Handler(BaseHTTPRequestHandler):
        headers_to_send: ClassVar[dict[str, str]] = {}

        def do_HEAD(self):
            self.send_response(200)
            for name, value in self.headers_to_send.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/a.tif?token=secret", Handler
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_web_address_is_known_by_what_its_server_says(server):
    address, handler = server
    handler.headers_to_send = {"ETag": '"a"', "Content-Length": "70", "Date": "today"}
    first = module._http_validators(address)
    assert first == module._http_validators(f"/vsicurl/{address}")
    assert first == ['etag "a"', "content-length 70"]
    assert "secret" not in str(first)
    handler.headers_to_send = {"ETag": '"b"', "Content-Length": "70"}
    assert module._http_validators(address) != first
    handler.headers_to_send = {"Content-Length": "70"}
    assert module._http_validators(address) == [], "a length alone tells too little"


@pytest.mark.parametrize("path", ["/vsis3/bucket/a.tif", "a.tif", "/vsicurl/ftp://x/a.tif"])
def test_other_addresses_are_asked_nothing(path):
    assert module._http_validators(path) == []
