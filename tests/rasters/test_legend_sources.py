"""Names and colours of other people's class raster: from wherever their programs put them."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from rasters import NORTH_UP, write_raster
from sampled_maps import write_map

from geodinoseg.cli import main
from geodinoseg.errors import LabelError, SceneError
from geodinoseg.evaluation.evaluate import evaluate_map
from geodinoseg.evaluation.sampling.draw import SampleOptions, draw_sample
from geodinoseg.legend import Legend
from geodinoseg.polygons.polygonize import polygonize, write_polygons
from geodinoseg.qgis.styles import raster_qml
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.windows import Window

NAMES = {1: "Wasser", 4: "Straße & Gleis", 30: "水田"}
PIXELS = np.array([1, 4, 30, 255], np.uint8).repeat(60).reshape(12, 20)


def write_ids(path, pixels=PIXELS, **profile):
    return write_raster(path, pixels[None], transform=NORTH_UP, **{"nodata": 255} | profile)


def names_of(path, **options):
    legend = open_class_raster(path, **options).legend
    return {entry.class_id: entry.name for entry in legend}


def colors_of(path, **options):
    return {entry.class_id: entry.color for entry in open_class_raster(path, **options).legend}


def table(columns, rows, **attributes):
    """A side file with an attribute table; columns are name, type and usage."""
    fields = "".join(
        f"<FieldDefn index='{i}'><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>"
        for i, (name, kind, usage) in enumerate(columns)
    )
    cells = "".join(
        f"<Row index='{i}'>{''.join(f'<F>{cell}</F>' for cell in row)}</Row>"
        for i, row in enumerate(rows)
    )
    told = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return (
        f"<PAMDataset><PAMRasterBand band='1'><GDALRasterAttributeTable {told}>{fields}{cells}"
        f"</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )


def beside(path, text):
    Path(f"{path}.aux.xml").write_text(text, "utf-8")
    return path


ESCAPED = {key: name.replace("&", "&amp;") for key, name in NAMES.items()}
TABLES = {
    "value and name": table([("Value", 0, 5), ("Class", 2, 2)], list(ESCAPED.items())),
    "a text column of any name": table(
        [("OID", 0, 0), ("Value", 0, 0), ("Count", 1, 1), ("BEZ_1", 2, 0)],
        [(i, key, 60, name) for i, (key, name) in enumerate(ESCAPED.items())],
    ),
    "codes beside names": table(
        [("VALUE", 0, 0), ("CODE", 2, 0), ("Source", 2, 0), ("LAND_COVER", 2, 0)],
        [(key, f"{10 * key}", "survey", name) for key, name in ESCAPED.items()],
    ),
    "lowest and highest": table(
        [("Min", 1, 3), ("Max", 1, 4), ("Label", 2, 0)],
        [(0.5, 1.5, ESCAPED[1]), (3.5, 20, ESCAPED[4]), (20.5, 40, ESCAPED[30])],
    ),
    "equal steps": table(
        [("Histogram", 1, 1), ("Class_Names", 2, 2)],
        [(0, ""), (60, ESCAPED[1]), (60, ESCAPED[4]), *[(0, "")] * 7, (60, ESCAPED[30])],
        Row0Min=-2.5,
        BinSize=3,
    ),
    "by position": table(
        [("Class_Names", 2, 2)], [(ESCAPED.get(position, ""),) for position in range(31)]
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_attribute_tables_of_every_form_name_the_classes(tmp_path, name, caplog):
    path = beside(write_ids(tmp_path / "m.tif"), TABLES[name])
    assert names_of(path) == NAMES
    assert not caplog.records


# GDAL writes other steps into an Imagine file.
IN_FILES = [("VRT", ".vrt", name) for name in TABLES]
IN_FILES += [("HFA", ".img", name) for name in TABLES if name != "equal steps"]


@pytest.mark.parametrize(("driver", "suffix", "name"), IN_FILES)
def test_tables_in_a_vrt_and_in_an_imagine_file_are_read(tmp_path, name, driver, suffix):
    source = beside(write_ids(tmp_path / "m.tif"), TABLES[name])
    copy = tmp_path / f"copy{suffix}"
    rasterio.shutil.copy(source, copy, driver=driver)
    Path(f"{source}.aux.xml").unlink()
    assert names_of(copy) == NAMES


def write_dbf(path, fields, rows):
    """A dBase table as ArcGIS writes it; fields are name, type, width and decimals."""
    header = b"".join(
        name.encode().ljust(11, b"\0")
        + kind.encode()
        + bytes(4)
        + bytes([width, decimals])
        + bytes(14)
        for name, kind, width, decimals in fields
    )
    row_bytes = 1 + sum(width for _, _, width, _ in fields)
    body = b"".join(
        b" "
        + b"".join(
            (
                str(cell).encode("utf-8").ljust(width)
                if kind == "C"
                else f"{cell:>{width}}".encode()
            )[:width]
            for cell, (_, kind, width, _) in zip(row, fields, strict=True)
        )
        for row in rows
    )
    start = struct.pack("<4BIHH20x", 3, 99, 1, 1, len(rows), 33 + len(header), row_bytes)
    path.write_bytes(start + header + b"\r" + body + b"\x1a")


@pytest.mark.parametrize("suffix", [".tif", ".img", ".png"])
def test_arcgis_names_and_colours_come_from_the_vat(tmp_path, suffix):
    path = write_ids(tmp_path / "m.tif")
    if suffix != ".tif":
        rasterio.shutil.copy(
            path, tmp_path / f"m{suffix}", driver={".img": "HFA", ".png": "PNG"}[suffix]
        )
        path = tmp_path / f"m{suffix}"
    fields = [("VALUE", "N", 9, 0), ("COUNT", "F", 19, 3), ("BEZEICHNUN", "C", 40, 0)]
    channels = [(name, "F", 13, 6) for name in ("RED", "GREEN", "BLUE")]
    write_dbf(
        Path(f"{path}.vat.dbf"),
        fields + channels,
        [(key, 60, name, 1.0, 0.5019607, 0) for key, name in NAMES.items()],
    )
    assert names_of(path) == NAMES
    assert set(colors_of(path).values()) == {"#ff8000"}


def test_a_vat_that_gdal_wrote_is_read(tmp_path):
    path = write_ids(tmp_path / "m.tif")
    # A Shapefile without geometry is a dBase table.
    pyogrio.raw.write(
        str(tmp_path / "t.shp"),
        geometry=None,
        field_data=[np.array(list(NAMES), np.int32), np.array(list(NAMES.values()), object)],
        fields=["Value", "Klasse"],
        driver="ESRI Shapefile",
        geometry_type=None,
        crs=None,
        encoding="UTF-8",
    )
    os.rename(tmp_path / "t.dbf", f"{path}.vat.dbf")
    assert names_of(path) == NAMES


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 40, b"\x03" + bytes(200), b"\x03\0\0\0" + b"\xff" * 300, b"<VRTDataset/>"],
)
def test_a_vat_that_is_no_table_says_nothing(tmp_path, content):
    path = write_ids(tmp_path / "m.tif")
    Path(f"{path}.vat.dbf").write_bytes(content)
    assert names_of(path)[4] == "class 4"


@pytest.mark.parametrize("suffix", [".qml", ".clr"])
def test_styles_beside_a_raster_count(tmp_path, suffix):
    path = write_ids(tmp_path / "m.tif")
    legend = Legend.of_names(NAMES, {1: "#010203", 4: "#102030", 30: "#fefdfc"})
    if suffix == ".qml":
        path.with_suffix(".qml").write_text(raster_qml(legend), "utf-8")
        assert names_of(path) == NAMES
    else:
        lines = [f"{entry.class_id} {' '.join(map(str, entry.rgb))}" for entry in legend]
        path.with_suffix(".clr").write_text("\n".join(lines))
    assert colors_of(path) == {entry.class_id: entry.color for entry in legend}


def test_names_that_nothing_gives_are_missed_in_one_line(tmp_path, caplog):
    path = write_ids(tmp_path / "m.tif")
    assert not open_class_raster(path).is_named
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: no class names were found in the file or beside it, so the classes are named "
        "class 1, class 4, class 30; give names with --legend FILE."
    ]


def our_map(path, pixels=PIXELS, names=NAMES):
    return write_map(path, pixels, names, transform=NORTH_UP)


def rio(*arguments):
    script = Path(sys.executable).with_name("rio")
    done = subprocess.run([script, *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tool", ["warp", "clip", "convert", "merge"])
def test_copies_of_our_maps_that_lost_their_names_are_said(tmp_path, tool, caplog):
    source, copy = our_map(tmp_path / "m.tif"), tmp_path / "copy.tif"
    options = {"warp": ["--like", source], "clip": ["--like", source]}.get(tool, [])
    rio(tool, source, copy, *options)
    raster = open_class_raster(copy)
    assert raster.legend.names == ("class 1", "class 4", "class 30")
    assert "no class names were found" in caplog.text
    (tmp_path / "l.csv").write_text("id,name\n" + "".join(f"{k},{v}\n" for k, v in NAMES.items()))
    assert names_of(copy, legend_file=tmp_path / "l.csv") == NAMES


def mosaic(path, files, source="SimpleSource", more=""):
    """What gdalbuildvrt makes of maps: the tags are gone."""
    height, width = PIXELS.shape
    placed = "".join(
        f"<{source}><SourceFilename relativeToVRT='1'>{file.name}</SourceFilename>"
        f"<SourceBand>1</SourceBand><SrcRect xOff='0' yOff='0' xSize='{width}' ySize='{height}'/>"
        f"<DstRect xOff='{index * width}' yOff='0' xSize='{width}' ySize='{height}'/>{more}</{source}>"
        for index, file in enumerate(files)
    )
    transform = ",".join(map(str, NORTH_UP.to_gdal()))
    path.write_text(
        f"<VRTDataset rasterXSize='{width * len(files)}' rasterYSize='{height}'><SRS>EPSG:32633</SRS>"
        f"<GeoTransform>{transform}</GeoTransform><VRTRasterBand dataType='Byte' band='1'>"
        f"<NoDataValue>255</NoDataValue>{placed}</VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_mosaic_of_our_maps_has_their_legend(tmp_path, caplog):
    files = [our_map(tmp_path / f"{name}.tif") for name in "ab"]
    path = mosaic(tmp_path / "all.vrt", files)
    assert names_of(path) == NAMES
    assert names_of(mosaic(tmp_path / "more.vrt", [files[0], path])) == NAMES
    assert polygonize(path).class_name.unique().tolist() == list(NAMES.values())
    assert not caplog.records


@pytest.mark.parametrize("fault", ["another legend", "no legend", "a table", "a mask"])
def test_a_mosaic_of_files_that_differ_has_no_legend_of_theirs(tmp_path, fault, caplog):
    files = [our_map(tmp_path / "a.tif")]
    more, source = "", "SimpleSource"
    if fault == "another legend":
        files.append(our_map(tmp_path / "b.tif", names={1: "a", 4: "b", 30: "c"}))
    elif fault == "no legend":
        files.append(write_ids(tmp_path / "b.tif"))
    elif fault == "a table":
        more, source = "<LUT>0:0,255:255</LUT>", "ComplexSource"
    else:
        source = "AveragedSource"
    assert "class 4" in names_of(mosaic(tmp_path / "all.vrt", files, source, more)).values()
    assert "no class names were found" in caplog.text


LEGEND_CSV = "id,name,color\n1,water,#4477aa\n4,road,\n30,rice,#ee6677\n9,rock,#228833\n"


def test_a_legend_file_names_the_classes_of_any_map(tmp_path, caplog):
    (tmp_path / "l.csv").write_text(LEGEND_CSV)
    expected = {1: "water", 4: "road", 9: "rock", 30: "rice"}
    for path in (write_ids(tmp_path / "m.tif"), our_map(tmp_path / "ours.tif")):
        assert names_of(path, legend_file=tmp_path / "l.csv") == expected
    colors = colors_of(tmp_path / "m.tif", legend_file=tmp_path / "l.csv")
    assert (colors[1], colors[30], colors[9]) == ("#4477aa", "#ee6677", "#228833")
    assert len(set(colors.values())) == 4
    assert not caplog.records


def test_what_a_legend_file_lacks_or_contradicts_is_said(tmp_path, caplog):
    path = write_ids(tmp_path / "m.tif")
    legend = tmp_path / "l.csv"
    legend.write_text("id,name\n1,water\n")
    assert names_of(path, legend_file=legend) == {1: "water", 4: "class 4", 30: "class 30"}
    assert f"{legend}: has no name for class 4, 30 of {path}" in caplog.text
    legend.write_text("name,color\nwater,#4477aa\n")
    with pytest.raises(LabelError, match=r"l\.csv: has no ids"):
        open_class_raster(path, legend_file=legend)
    legend.write_text("id,name\n1,水田\n")
    with pytest.raises(LabelError, match="where it belongs to class 30"):
        open_class_raster(our_map(tmp_path / "ours.tif"), legend_file=legend)
    with pytest.raises(LabelError, match=r"absent\.csv: no such file"):
        open_class_raster(path, legend_file=tmp_path / "absent.csv")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_commands_take_a_legend_file(tmp_path):
    path = write_ids(tmp_path / "m.tif", PIXELS.repeat(9, 0).repeat(9, 1))
    (tmp_path / "l.csv").write_text(LEGEND_CSV)
    legend = ("--legend", tmp_path / "l.csv")
    assert run("polygonize", path, "-o", tmp_path / "p.gpkg", *legend).exit_code == 0
    names = {"water", "road", "rice"}
    assert set(pyogrio.read_dataframe(tmp_path / "p.gpkg", layer="p").class_name) == names
    done = run("sample", path, "-o", tmp_path / "s.gpkg", *legend)
    assert all(name in done.stdout for name in names)
    done = run(
        "evaluate",
        path,
        "--labels",
        tmp_path / "p.gpkg|layername=p",
        *legend,
        "-o",
        tmp_path / "r.html",
    )
    assert done.exit_code == 0, done.output
    assert all(name in done.stdout for name in names)
    assert "rice" in (tmp_path / "r.html").read_text()
    done = run("picture", path, path, "-o", tmp_path / "p.png", *legend)
    assert done.exit_code == 0, done.output


def test_a_number_that_the_legend_lacks_is_an_error_wherever_it_is_read(tmp_path, caplog):
    pixels = PIXELS.copy()
    pixels[4, 5:9] = 7
    path = our_map(tmp_path / "m.tif", pixels)
    labels = write_ids(tmp_path / "labels.tif")
    said = r"m\.tif: has pixels of value 7, which is not a class of its legend \(1, 4, 30\)"
    with pytest.raises(SceneError, match=said):
        evaluate_map(path, labels)
    with pytest.raises(SceneError, match=said):
        draw_sample(path, tmp_path / "s.gpkg", options=SampleOptions(points=200))
    # However small, and in a class of which no polygons are wanted.
    with pytest.raises(SceneError, match=said):
        write_polygons(path, tmp_path / "p.gpkg", min_area_m2=1000)
    assert not (tmp_path / "s.gpkg").exists()
    assert not (tmp_path / "p.gpkg").exists()
    (tmp_path / "l.csv").write_text("id,name\n7,mud\n")
    assert (
        "mud"
        in polygonize(open_class_raster(path, legend_file=tmp_path / "l.csv")).class_name.tolist()
    )


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("strange", [7, 300, 30_000])
def test_it_is_one_in_every_type_of_pixels(tmp_path, dtype, strange):
    pixels = PIXELS.astype(dtype)
    pixels[3, 3] = strange
    path = tmp_path / "m.tif"
    write_raster(path, pixels[None], transform=NORTH_UP, nodata=255)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(GEODINOSEG_LEGEND=json.dumps(Legend.of_names(NAMES).to_json()))
    raster = open_class_raster(path)
    whole = Window(col_off=0, row_off=0, width=20, height=12)
    with pytest.raises(SceneError, match=f"pixels of value {strange}, which"):
        raster.read(whole)
    above = raster.read(Window(col_off=0, row_off=0, width=20, height=3))
    assert_array_equal(above, PIXELS[:3])


def test_floats_of_every_nodata_are_read_as_classes(tmp_path):
    for number, nodata in enumerate((np.nan, -9999, 0, None)):
        missing = np.nan if nodata is None else nodata
        pixels = np.where(PIXELS == 255, missing, PIXELS.astype(float))
        path = write_raster(
            tmp_path / f"{number}.tif", pixels[None].astype(np.float32), nodata=nodata
        )
        raster = open_class_raster(path)
        assert raster.legend.class_ids.tolist() == [1, 4, 30]
        assert (raster.dtype, raster.nodata) == (np.uint16, 65_535)
        found = raster.read(Window(col_off=0, row_off=0, width=20, height=12))
        assert_array_equal(found, np.where(PIXELS == 255, 65_535, PIXELS.astype(int)))


def test_info_tells_a_class_raster_of_others_or_says_both(tmp_path, caplog):
    caplog.set_level(logging.WARNING)

    def facts(path):
        return json.loads(run("info", path, "--json").stdout)["result"]

    unclear = facts(write_ids(tmp_path / "plain.tif"))
    assert unclear["kind"] == "scene"
    assert unclear["possible_class_ids"] == [1, 4, 30]
    text = run("info", tmp_path / "plain.tif").stdout
    assert "a class raster without names" in text
    assert "(1, 4, 30)" in text
    floats = write_ids(tmp_path / "f.tif", PIXELS.astype(np.float32))
    assert facts(floats)["possible_class_ids"]
    named = beside(write_ids(tmp_path / "named.tif"), TABLES["a text column of any name"])
    assert facts(named)["kind"] == "class_raster"
    assert facts(named)["classes"][0]["name"].startswith("Wasser")
    grey = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8)
    assert facts(write_ids(tmp_path / "grey.tif", grey))["possible_class_ids"] is None
    fractions = write_ids(tmp_path / "half.tif", PIXELS + np.float32(0.5))
    assert facts(fractions)["possible_class_ids"] is None
    palette = write_ids(tmp_path / "p.tif", photometric="palette")
    with rasterio.open(palette, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0), 4: (0, 0, 255)})
    assert facts(palette)["has_names"] is False
    assert "none found; give them with --legend" in run("info", palette).stdout


def test_a_part_of_ones_own_map_leaves_its_confidence_out(tmp_path, caplog):
    """As gdal_translate -srcwin makes it: the tag that names the confidence is inherited."""
    shape = (1, *PIXELS.shape)
    confidence = write_raster(
        tmp_path / "sure.tif", np.full(shape, 90, np.uint8), transform=NORTH_UP
    )
    path = our_map(tmp_path / "m.tif")
    part = our_map(tmp_path / "part.tif", PIXELS[:6, :9])
    for map_path in (path, part):
        with rasterio.open(map_path, "r+") as dataset:
            dataset.update_tags(GEODINOSEG_CONFIDENCE=confidence.name)
    assert "conf_mean" in polygonize(path)
    assert not caplog.records
    assert "conf_mean" not in polygonize(part)
    labels = write_ids(tmp_path / "labels.tif")
    assert evaluate_map(part, labels).reliability is None
    assert caplog.text.count("sure.tif: is not the confidence of") == 2
    write_polygons(part, tmp_path / "p.gpkg")
