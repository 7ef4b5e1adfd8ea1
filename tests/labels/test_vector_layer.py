"""Vector files as other programs write them: KML, zipped shapefiles, curves, a damaged copy."""

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings, strategies as st
from label_files import BOX, HEIGHT, UTM, WIDTH, ground, square, write
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from vector_formats import ALL, CELLS, NAMES, expected, geodatabase, kml, zipped

from geodinoseg.errors import GeodinosegError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.windows import Window


def three_dimensional(path):
    frame = geopandas.GeoDataFrame({"crop": NAMES}, geometry=list(ground(CELLS)), crs=UTM)
    frame.geometry = shapely.force_3d(frame.geometry.array, 77.0)
    frame.to_file(path)
    return path


WRITERS = {
    "fields.kml": kml,
    "fields.zip": zipped,
    "fields.gdb": geodatabase,
    "heights.gpkg": three_dimensional,
    "heights.shp": three_dimensional,
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_other_programs_give_the_same_labels(tmp_path, name):
    path = WRITERS[name](tmp_path / name)
    labels = open_labels(path, BOX, options=LabelOptions(class_field="crop"))
    assert labels.legend.names == ("a", "b")
    assert_array_equal(labels.read(ALL), expected())


def test_a_missing_column_is_said_with_those_there_are_in_any_format(tmp_path):
    for name, writer in WRITERS.items():
        path = writer(tmp_path / name)
        with pytest.raises(GeodinosegError, match=r"has no column 'kind'; .*crop"):
            open_labels(path, BOX, options=LabelOptions(class_field="kind"))


@pytest.mark.parametrize(
    "shape",
    [
        "CURVEPOLYGON(CIRCULARSTRING({w} {y},{e} {y},{w} {y}))",
        "MULTISURFACE(CURVEPOLYGON(CIRCULARSTRING({w} {y},{e} {y},{w} {y})))",
        "CURVEPOLYGON(COMPOUNDCURVE(CIRCULARSTRING({w} {y},{x} {n},{e} {y}),"
        "CIRCULARSTRING({e} {y},{x} {s},{w} {y})))",
    ],
)
def test_curved_surfaces_become_polygons(tmp_path, shape):
    x, y = BOX.transform @ (60, 40)
    text = shape.format(x=x, y=y, w=x - 40, e=x + 40, n=y + 40, s=y - 40)
    path = tmp_path / "curved.csv"
    other = ground([square(100, 60)])[0].wkt
    path.write_text(f'WKT,label\n"{text}",a\n"{other}",b\n')
    bare = GeoBox(crs=None, transform=BOX.transform, width=WIDTH, height=HEIGHT)
    class_indices = open_labels(path, bare).read(ALL)
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.hypot(cols - 60, rows - 40) < 20
    # Curves are cut into chords, which miss the circle by a fraction of a pixel.
    assert ((class_indices == 0) != inside).sum() <= 12


def test_a_polygon_across_the_180th_meridian_is_labelled_on_both_sides(tmp_path):
    transform = Affine.translation(800_000, 8_100_000) @ Affine.scale(500, -500)
    box = GeoBox(crs=CRS.from_epsg(32760), transform=transform, width=301, height=99)
    to_degrees = pyproj.Transformer.from_crs(32760, 4326, always_xy=True)
    cols, rows = np.meshgrid(np.arange(301) + 0.5, np.arange(99) + 0.5)
    lon, lat = to_degrees.transform(*(transform @ (cols, rows)))
    # Beyond 180 degrees, as many programs draw on over the meridian.
    cells = [shapely.box(179.9, -17.3, 180.4, -17.1), shapely.box(-179.4, -17.3, -179.1, -17.2)]
    path = tmp_path / "fiji.gpkg"
    geopandas.GeoDataFrame({"label": ["a", "b"]}, geometry=cells, crs=4326).to_file(path)
    class_indices = open_labels(path, box).read(Window(col_off=0, row_off=0, width=301, height=99))
    a = (lon % 360 > 179.9) & (lon % 360 < 180.4) & (lat > -17.3) & (lat < -17.1)
    assert a.sum() > 1000
    assert ((class_indices == 0) != a).sum() <= 8


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The same labels in every format, to be damaged."""
    folder = tmp_path_factory.mktemp("sound")
    for suffix in (".gpkg", ".shp", ".geojson", ".fgb"):
        write(folder / f"l{suffix}", CELLS, label=NAMES, crs=4326 if suffix == ".geojson" else None)
    geopandas.GeoDataFrame({"label": NAMES}, geometry=list(ground(CELLS)), crs=UTM).to_parquet(
        folder / "l.parquet"
    )
    with rasterio.open(
        folder / "l.tif",
        "w",
        driver="GTiff",
        width=WIDTH,
        height=HEIGHT,
        count=1,
        dtype="int16",
        crs=UTM,
        transform=BOX.transform,
        nodata=IGNORE,
        compress="lzw",
    ) as dataset:
        dataset.write(expected().astype(np.int16), 1)
    return folder


@settings(deadline=None, max_examples=60)
@given(
    suffix=st.sampled_from([".gpkg", ".shp", ".geojson", ".fgb", ".parquet", ".tif"]),
    part=st.sampled_from(["", ".dbf", ".shx", ".prj"]),
    keep=st.floats(0, 1),
    damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_file_gives_labels_or_one_clear_line(
    sound, tmp_path_factory, suffix, part, keep, damage
):
    folder = tmp_path_factory.mktemp("damaged")
    for path in sound.glob("l.*"):
        if path.suffix in {suffix, ".dbf", ".shx", ".prj"}:
            (folder / path.name).write_bytes(path.read_bytes())
    spoilt = folder / f"l{part if part and suffix == '.shp' else suffix}"
    content = bytearray(spoilt.read_bytes())
    for where, value in damage:
        content[int(where * len(content))] = value
    spoilt.write_bytes(content[: round(keep * len(content))] if not damage else content)
    target = folder / f"l{suffix}"
    try:
        said = str(open_labels(target, BOX).read(ALL).shape)
    except GeodinosegError as error:
        said = str(error)
        if str(target) not in said:
            raise
    assert "\n" not in said


def test_layers_are_found_by_the_names_that_drivers_give(tmp_path):
    path = kml(tmp_path / "fields.kml")
    (name, _), *_ = pyogrio.list_layers(path)
    labels = open_labels(f"{path}|layername={name}", BOX, options=LabelOptions(class_field="crop"))
    assert_array_equal(labels.read(ALL), expected())


@pytest.mark.parametrize("name", ["a;b.gpkg", "a!b.gpkg", "a\nb.gpkg", "a\tb.shp"])
def test_another_file_is_not_read_for_a_name_that_looks_like_an_address(tmp_path, name):
    for file in (name, "a", "b.gpkg", "ab.gpkg", "ab.shp"):
        cells = np.array([square(0, 0), square(20, 20)], dtype=object)
        write(tmp_path / "plain.gpkg", cells, **{"class": ["ash", "elm"]})
        (tmp_path / "plain.gpkg").rename(tmp_path / file)
    with pytest.raises(GeodinosegError, match=r"whose path holds .* cannot be read"):
        open_labels(tmp_path / name, BOX)
