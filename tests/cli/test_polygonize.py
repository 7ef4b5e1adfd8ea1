"""The command polygonize: what it accepts, writes and says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyogrio
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from coverages import NODATA, blobs, write_class_raster

from geodinoseg.cli import main


@pytest.fixture
def raster(tmp_path):
    return write_class_raster(tmp_path / "map.tif", blobs(60, 77))


def run(*arguments):
    return CliRunner().invoke(main, ["polygonize", *map(str, arguments)])


def test_it_writes_the_polygons_and_says_so(tmp_path, raster):
    output = tmp_path / "map.gpkg"
    result = run(raster, "-o", output)
    assert result.exit_code == 0, result.output
    assert str(output) in result.stdout
    assert len(pyogrio.read_dataframe(output, layer="map")) > 10


def test_all_options_at_once(tmp_path, raster):
    output = tmp_path / "map.shp"
    result = run(
        raster,
        "-o",
        output,
        "--min-area",
        5,
        "--keep-class",
        "class 2",
        "--fill-holes",
        3,
        "--simplify",
        "0.5m",
        "--classes",
        "1,class 2",
        "--dissolve",
    )
    assert result.exit_code == 0, result.output
    assert pyogrio.read_dataframe(output).class_id.tolist() == [1, 2]


def test_json_ends_with_the_outputs(tmp_path, raster):
    output = tmp_path / "map.fgb"
    events = [json.loads(line) for line in run(raster, "-o", output, "--json").stdout.splitlines()]
    assert (events[-1]["event"], events[-1]["outputs"]) == ("done", [str(output)])
    assert all(event["event"] == "progress" for event in events[:-1])


@pytest.mark.parametrize(
    "arguments",
    [["--simplify", "far"], ["--simplify", "-1"], ["--min-area", "-2"], ["--classes", "1,,2"]],
)
def test_wrong_usage_exits_2(tmp_path, raster, arguments):
    result = run(raster, "-o", tmp_path / "map.gpkg", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output


def test_what_a_user_can_mend_is_one_line_and_exit_1(tmp_path, raster):
    output = tmp_path / "map.gpkg"
    assert run(raster, "-o", output).exit_code == 0
    result = run(raster, "-o", output)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "map.gpkg: exists already" in result.stderr


def test_nothing_of_another_library_is_printed_where_the_unit_is_rare(tmp_path):
    transform = Affine(0.01, 0, 1, 0, -0.01, 5000)
    kilometres = rasterio.crs.CRS.from_user_input(
        "+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9996 +datum=WGS84 +units=km"
    )
    path = write_class_raster(
        tmp_path / "map.tif", blobs(30, 41), transform=transform, crs=kilometres
    )
    command = ["polygonize", path, "-o", tmp_path / "map.gpkg", "--min-area", "500"]
    environment = {k: v for k, v in os.environ.items() if k not in {"PROJ_DATA", "PROJ_LIB"}}
    done = subprocess.run(
        [sys.executable, "-m", "geodinoseg", *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    frame = pyogrio.read_dataframe(tmp_path / "map.gpkg", layer="map")
    assert frame.area_m2.min() >= 500
    assert frame.area_m2.sum() == pytest.approx((blobs(30, 41) != NODATA).sum() * 100)


def test_help_holds_an_example():
    assert "geodinoseg polygonize landcover.tif -o landcover.gpkg" in run("--help").output
