"""A class raster comes back as it was written, however its rows came, or it does not appear."""

from __future__ import annotations

import itertools
import json
import resource
import warnings
import xml.etree.ElementTree as ET
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from geodinoseg.errors import GridError, OutputError, SceneError
from geodinoseg.geobox import GeoBox, same_grid
from geodinoseg.legend import Legend
from geodinoseg.rasters import cog
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.map_rows import BLOCK_PX, BlockRows, ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.windows import Window, windows_over

AWKWARD = "Straße & Gleis <1>"
LEGEND = Legend.of_names({0: "background", 3: AWKWARD, 7: "水田"})
WIDE_LEGEND = Legend.of_names({0: "background", 300: AWKWARD, 65_534: "last"})
UTM = CRS.from_epsg(32645)
ROTATED = Affine.translation(330_000, 3_060_000) @ Affine.rotation(17) @ Affine.scale(0.5, -0.5)
PLACES = {
    "north-up": (UTM, Affine(0.5, 0, 330_000, 0, -0.5, 3_060_000)),
    "rotated": (UTM, ROTATED),
    "south-up": (UTM, Affine(0.5, 0, 330_000, 0, 0.5, 3_060_000)),
    "geographic": (CRS.from_epsg(4326), Affine(1e-5, 0, 85.5, 0, -1e-5, 27.6)),
    "no CRS": (None, Affine(0.5, 0, 100, 0, -0.5, 200)),
    "no CRS, rotated": (None, ROTATED),
    "nowhere": (None, Affine.identity()),
}
SIZES = [(1, 1), (3, 700), (700, 3), (512, 513), (1030, 1541)]


def geobox_of(height, width, place="rotated"):
    crs, transform = PLACES[place]
    return GeoBox(crs=crs, transform=transform, width=width, height=height)


def classes_of(height, width, legend=LEGEND):
    """Patches of a few pixels, with nodata in a corner."""
    rng = np.random.default_rng(height * 7919 + width)
    coarse = rng.integers(0, len(legend), (height // 5 + 1, width // 7 + 1))
    patches = np.kron(coarse, np.ones((5, 7), dtype=np.int64))[:height, :width]
    class_ids = legend.class_ids[patches].astype(legend.dtype)
    class_ids[: height // 3, : width // 4] = legend.nodata
    return class_ids


def rows_of(window, class_ids, *, confidence=None, probabilities=None):
    return ClassRows(
        window=window,
        class_ids=class_ids[window.slices],
        confidence=None if confidence is None else confidence[window.slices],
        probabilities=None if probabilities is None else probabilities[:, *window.slices],
    )


def write_whole(path, class_ids, legend=LEGEND, *, place="rotated", **options):
    height, width = class_ids.shape
    whole = Window(col_off=0, row_off=0, width=width, height=height)
    with class_raster_writer(path, geobox_of(height, width, place), legend, **options) as writer:
        writer.write(rows_of(whole, class_ids))


def whole_of(raster):
    return Window(col_off=0, row_off=0, width=raster.width, height=raster.height)


def write_plain(path, pixels, *, count=1, **profile):
    """A raster as another program leaves it."""
    height, width = pixels.shape
    settings_ = {"transform": ROTATED, "crs": UTM, "dtype": pixels.dtype} | profile
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, **settings_
    ) as dataset:
        for band in range(1, count + 1):
            dataset.write(pixels, band)
    return path


@contextmanager
def unplaced_allowed():
    """rasterio warns of every raster without a place; some of ours have none on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def faults_of_cog(path):
    with unplaced_allowed():
        valid, faults, doubts = cog_validate(path, strict=True)
    assert valid == (not faults and not doubts)
    return [*faults, *doubts]


@contextmanager
def opened(path):
    with unplaced_allowed(), rasterio.open(path) as dataset:
        yield dataset


@pytest.mark.parametrize("place", ["rotated", "no CRS, rotated", "nowhere"])
@pytest.mark.parametrize("largest", [254, 300])
def test_the_raster_that_a_writer_describes_is_the_one_that_is_opened(tmp_path, place, largest):
    legend = Legend.of_names({0: "bare", largest: "lake"}, {0: "#ABCDEF"})
    path, whole = tmp_path / "map.tif", Window(col_off=0, row_off=0, width=5, height=3)
    with class_raster_writer(
        path, geobox_of(3, 5, place), legend, confidence_path=tmp_path / "sure.tif"
    ) as writer:
        percent = np.full((3, 5), 80, np.uint8)
        writer.write(rows_of(whole, classes_of(3, 5, legend), confidence=percent))
    assert writer.raster == open_class_raster(path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_and_place_gives_a_strictly_valid_cog_that_reads_as_written(
    tmp_path, size, place
):
    height, width = size
    class_ids = classes_of(height, width)
    write_whole(tmp_path / "map.tif", class_ids, place=place)

    raster = open_class_raster(tmp_path / "map.tif")
    assert faults_of_cog(raster.path) == []
    assert same_grid(raster.geobox, geobox_of(height, width, place))
    assert (raster.legend, raster.nodata, raster.dtype) == (LEGEND, 255, np.uint8)
    assert raster.block_shape == (BLOCK_PX, BLOCK_PX)
    assert_array_equal(raster.read(whole_of(raster)), class_ids)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "map.qml",
        "map.tif",
        "map.tif.aux.xml",
    ]


def test_colours_names_and_tags_are_in_the_files(tmp_path):
    path = tmp_path / "land cover.v2.tif"
    write_whole(path, classes_of(41, 67), tags={"GEODINOSEG_MODEL": "a < b & c"})
    with rasterio.open(path) as dataset:
        colors, tags = dataset.colormap(1), dataset.tags()
        assert dataset.nodata == 255
        assert dataset.compression.name == "deflate"
    assert {value: colors[value] for value in (0, 3, 7)} == {
        c.class_id: (*c.rgb, 255) for c in LEGEND
    }
    assert colors[255][3] == 0
    assert tags["GEODINOSEG_MODEL"] == "a < b & c"
    assert tags["TIFFTAG_SOFTWARE"].startswith("geodinoseg ")
    assert json.loads(tags["GEODINOSEG_LEGEND"]) == LEGEND.to_json()
    assert AWKWARD in [e.text for e in ET.parse(f"{path}.aux.xml").iter("F")]
    style = ET.parse(path.with_name("land cover.v2.qml"))
    assert [e.get("label") for e in style.iter("paletteEntry")] == list(LEGEND.names)


def test_ids_past_a_byte_make_a_uint16_raster_without_a_colour_table(tmp_path):
    class_ids = classes_of(33, 520, WIDE_LEGEND)
    write_whole(tmp_path / "map.tif", class_ids, WIDE_LEGEND)
    raster = open_class_raster(tmp_path / "map.tif")
    assert (raster.dtype, raster.nodata, raster.legend) == (np.uint16, 65_535, WIDE_LEGEND)
    assert_array_equal(raster.read(whole_of(raster)), class_ids)
    with rasterio.open(raster.path) as dataset, pytest.raises(ValueError, match="NULL color table"):
        dataset.colormap(1)


def test_the_cache_of_a_conversion_holds_blocks_of_all_bands(tmp_path, monkeypatch):
    found, env = [], rasterio.Env

    def env_of(**settings):
        found.append(settings["GDAL_CACHEMAX"])
        return env(**settings)

    monkeypatch.setattr(rasterio, "Env", env_of)
    bands, height, width = 60, 40, 50
    layout = cog.CogLayout(
        geobox=geobox_of(height, width, "rotated"),
        dtype=np.dtype(np.uint8),
        nodata=255,
        band_names=tuple(map(str, range(bands))),
        tags={},
    )
    path, pixels = tmp_path / "each.tif", np.ones((bands, height, width), dtype=np.uint8)
    with cog.cog_writer(path, layout, target=path) as rows:
        rows.write(Window(col_off=0, row_off=0, width=width, height=height), pixels)
    assert max(found) >= 10 * bands * BLOCK_PX**2
    with opened(path) as dataset:
        assert_array_equal(dataset.read(), pixels)


@pytest.mark.parametrize("place", ["rotated", "nowhere"])
def test_confidence_and_probabilities_lie_in_cogs_of_their_own(tmp_path, place):
    height, width = 531, 1027
    class_ids = classes_of(height, width)
    rng = np.random.default_rng(3)
    confidence = rng.integers(0, 101, (height, width), dtype=np.uint8)
    probabilities = rng.integers(0, 251, (3, height, width), dtype=np.uint8)
    paths = [tmp_path / "map.tif", tmp_path / "how_sure.tif", tmp_path / "each.tif"]
    with class_raster_writer(
        paths[0],
        geobox_of(height, width, place),
        LEGEND,
        confidence_path=paths[1],
        probabilities_path=paths[2],
    ) as writer:
        for window in windows_over(height=height, width=width, rows=100, cols=width):
            writer.write(
                rows_of(window, class_ids, confidence=confidence, probabilities=probabilities)
            )

    assert [faults_of_cog(path) for path in paths] == [[], [], []]
    assert open_class_raster(paths[0]).confidence_path == paths[1]
    with opened(paths[1]) as dataset:
        assert_array_equal(dataset.read(1), confidence)
        assert (dataset.nodata, dataset.units, dataset.scales) == (255, ("percent",), (1.0,))
    with opened(paths[2]) as dataset:
        assert_array_equal(dataset.read(), probabilities)
        assert dataset.descriptions == LEGEND.names
        assert dataset.nodata == 255
        assert_array_equal(dataset.scales, [1 / 250] * 3)
    assert (tmp_path / "how_sure.qml").exists()
    for path in paths[1:]:
        with pytest.raises(SceneError, match="not classes; give the class raster"):
            open_class_raster(path)


def test_a_confidence_raster_that_went_away_is_not_named(tmp_path):
    write_whole(tmp_path / "map.tif", classes_of(20, 30))
    assert open_class_raster(tmp_path / "map.tif").confidence_path is None
    (tmp_path / "deep").mkdir()
    class_ids, sure = classes_of(20, 30), np.full((20, 30), 90, dtype=np.uint8)
    whole = Window(col_off=0, row_off=0, width=30, height=20)
    with class_raster_writer(
        tmp_path / "map.tif",
        geobox_of(20, 30),
        LEGEND,
        confidence_path=tmp_path / "deep" / "sure.tif",
    ) as writer:
        writer.write(rows_of(whole, class_ids, confidence=sure))
    assert open_class_raster(tmp_path / "map.tif").confidence_path == tmp_path / "deep/sure.tif"
    (tmp_path / "deep/sure.tif").unlink()
    assert open_class_raster(tmp_path / "map.tif").confidence_path is None


@st.composite
def cuts(draw, height, width):
    """Rows of chunks in any order; within a chunk from top to bottom, of any height."""
    cols = [0, *(c for c in range(BLOCK_PX, width, BLOCK_PX) if draw(st.booleans())), width]
    rows = [0, *(r for r in range(BLOCK_PX, height, BLOCK_PX) if draw(st.booleans())), height]
    chunks = list(itertools.product(itertools.pairwise(cols), itertools.pairwise(rows)))
    for (left, right), (top, bottom) in draw(st.permutations(chunks)):
        inner = draw(st.sets(st.integers(top, bottom), max_size=6))
        for start, end in itertools.pairwise(sorted(inner | {top, bottom})):
            yield Window(col_off=left, row_off=start, width=right - left, height=end - start)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """A map that was written at once: its pixels and its file."""
    class_ids = classes_of(1061, 1303)
    path = tmp_path_factory.mktemp("uncut") / "map.tif"
    write_whole(path, class_ids)
    return class_ids, path.read_bytes()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cut_into_chunks_and_rows_gives_the_same_bytes(tmp_path_factory, uncut, data):
    class_ids, expected = uncut
    path = tmp_path_factory.mktemp("cut") / "map.tif"
    with class_raster_writer(path, geobox_of(*class_ids.shape), LEGEND) as writer:
        for window in data.draw(cuts(*class_ids.shape)):
            writer.write(rows_of(window, class_ids))
    assert path.read_bytes() == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_block_rows_hands_each_block_on_once_and_whole(data):
    height, width = data.draw(st.tuples(st.integers(2, 1600), st.integers(1, 1600)))
    pixels = np.arange(2 * height * width, dtype=np.int32).reshape(2, height, width)
    out, times = np.zeros_like(pixels), np.zeros((height, width), dtype=np.int64)

    def sink(window, block_row):
        assert window.row_off % BLOCK_PX == window.col_off % BLOCK_PX == 0
        assert window.row_end in {window.row_off + BLOCK_PX, height}
        out[:, *window.slices] = block_row
        times[window.slices] += 1

    rows = BlockRows(sink, height=height, width=width, bands=2, dtype=pixels.dtype)
    for window in data.draw(cuts(height, width)):
        rows.write(window, pixels[:, *window.slices])
    assert rows.missing_blocks == 0
    assert (times == 1).all()
    assert_array_equal(out, pixels)


@pytest.mark.parametrize(
    ("window", "fault"),
    [
        ({"col_off": 0, "row_off": 100, "width": 1024, "height": 5}, "neither continues"),
        ({"col_off": 100, "row_off": 0, "width": 512, "height": 5}, "neither continues"),
        ({"col_off": 512, "row_off": 0, "width": 300, "height": 5}, "neither continues"),
        ({"col_off": 512, "row_off": 0, "width": 800, "height": 5}, "exceeds the raster"),
        ({"col_off": 0, "row_off": 0, "width": 1100, "height": 512}, "has already been written"),
    ],
)
def test_rows_out_of_order_are_refused(window, fault):
    rows = BlockRows(lambda *_: None, height=900, width=1100, bands=1, dtype=np.dtype(np.uint8))
    whole = Window(col_off=0, row_off=0, width=1100, height=512)
    rows.write(whole, np.zeros((1, 512, 1100), dtype=np.uint8))
    bad = Window(**window)
    with pytest.raises(GridError, match=fault):
        rows.write(bad, np.zeros((1, bad.height, bad.width), dtype=np.uint8))


def test_rows_of_another_dtype_or_shape_are_refused(tmp_path):
    window = Window(col_off=0, row_off=0, width=30, height=20)
    with pytest.raises(GridError, match="do not fit"):
        ClassRows(window=window, class_ids=np.zeros((30, 20), dtype=np.uint8))
    rows = ClassRows(window=window, class_ids=np.zeros((20, 30), dtype=np.int64))
    with (
        pytest.raises(GridError, match="takes uint8"),
        class_raster_writer(tmp_path / "map.tif", geobox_of(20, 30), LEGEND) as writer,
    ):
        writer.write(rows)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def old_map(tmp_path):
    """A finished map with confidence, and what its folder holds."""
    class_ids, sure = classes_of(20, 30), np.full((20, 30), 90, dtype=np.uint8)
    whole = Window(col_off=0, row_off=0, width=30, height=20)
    with class_raster_writer(
        tmp_path / "map.tif", geobox_of(20, 30), LEGEND, confidence_path=tmp_path / "sure.tif"
    ) as writer:
        writer.write(rows_of(whole, class_ids, confidence=sure))
    return tmp_path, contents(tmp_path)


def contents(folder):
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def write_new_map(folder, *, rows=(0, 700), then_raise=None):
    class_ids = np.random.default_rng(0).integers(0, 250, (700, 600), dtype=np.uint8)
    window = Window(col_off=0, row_off=rows[0], width=600, height=rows[1] - rows[0])
    with class_raster_writer(
        folder / "map.tif", geobox_of(700, 600), LEGEND, confidence_path=folder / "sure.tif"
    ) as writer:
        writer.write(rows_of(window, class_ids, confidence=class_ids))
        if then_raise:
            raise then_raise


@pytest.mark.parametrize("error", [ValueError("oh"), KeyboardInterrupt(), SceneError("bad block")])
def test_whatever_interrupts_the_work_leaves_the_old_map_whole(old_map, error):
    folder, before = old_map
    with pytest.raises(type(error)):
        write_new_map(folder, then_raise=error)
    assert contents(folder) == before


def test_a_map_with_pixels_missing_does_not_appear(old_map):
    folder, before = old_map
    with pytest.raises(OutputError, match=r"map\.tif|sure\.tif.*received no pixels"):
        write_new_map(folder, rows=(0, 512))
    assert contents(folder) == before


@pytest.mark.parametrize("limit", [0, 300, 5_000, 200_000, 400_000, 500_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_map_whole(old_map, limit):
    folder, before = old_map
    with at_most(limit), pytest.raises(OutputError) as caught:
        write_new_map(folder)
    assert contents(folder) == before
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((str(folder / "map.tif"), str(folder / "sure.tif")))


@contextmanager
def at_most(file_bytes):
    """Files cannot grow further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fault", ["changed", "cut short", "another size"])
def test_a_file_that_reads_back_otherwise_does_not_appear(old_map, monkeypatch, fault):
    folder, before = old_map
    copy = rasterio.shutil.copy

    def copy_badly(source, path, **options):
        if fault == "another size":
            write_plain(path, np.zeros((699, 600), dtype=np.uint8), nodata=255)
            return
        copy(source, path, **options)
        data = bytearray(path.read_bytes())
        if fault == "cut short":
            del data[-100:]
        else:
            data[-5000:-4990] = bytes(10)
        path.write_bytes(data)

    monkeypatch.setattr(rasterio.shutil, "copy", copy_badly)
    with pytest.raises(OutputError, match="written"):
        write_new_map(folder)
    assert contents(folder) == before


def test_a_block_lost_on_the_way_is_found(old_map, monkeypatch):
    folder, before = old_map
    write = rasterio.io.DatasetWriter.write

    class Forgetful:
        """GDAL's threads on a full disk: the write is accepted, the block is lost."""

        def __init__(self, dataset):
            self._dataset = dataset

        def __getattr__(self, name):
            return getattr(self._dataset, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._dataset.close()

        def write(self, pixels, **options):
            if options["window"][0][0] == 0:
                write(self._dataset, pixels, **options)

    open_ = rasterio.open
    monkeypatch.setattr(
        rasterio,
        "open",
        lambda path, mode="r", **options: (
            Forgetful(open_(path, mode, **options)) if mode == "w" else open_(path, mode, **options)
        ),
    )
    with pytest.raises(OutputError, match="rows 512 to 699 do not read back as written"):
        write_new_map(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("other", ["map.tif", "map.tiff"])
def test_two_outputs_of_one_name_are_refused(old_map, other):
    folder, before = old_map
    with (
        pytest.raises(OutputError, match="another output of this run has this name"),
        class_raster_writer(
            folder / "map.tif", geobox_of(20, 30), LEGEND, confidence_path=folder / other
        ),
    ):
        pass
    assert contents(folder) == before


def test_a_folder_that_takes_no_files_is_one_line(tmp_path):
    with (
        pytest.raises(OutputError, match="cannot write there"),
        class_raster_writer(tmp_path / "gone" / "map.tif", geobox_of(20, 30), LEGEND),
    ):
        pass


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_whole_numbers_of_any_type_are_classes_called_by_their_number(tmp_path, dtype):
    pixels = np.zeros((37, 53), dtype=dtype)
    pixels[:9, 20:], pixels[30:, :11] = 4, 120
    raster = open_class_raster(write_plain(tmp_path / "other.tif", pixels, nodata=0))
    assert raster.legend.names == ("class 4", "class 120")
    assert (raster.nodata, raster.dtype) == (0, np.dtype(dtype))
    assert raster.confidence_path is None
    assert_array_equal(raster.read(whole_of(raster)), pixels)


@given(
    pixels=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 90), st.integers(1, 130)),
    block=st.sampled_from([None, 16, 64]),
)
@settings(max_examples=40, deadline=None)
def test_the_classes_found_are_those_that_numpy_finds(tmp_path_factory, pixels, size, block):
    values = np.random.default_rng(pixels).choice([0, 2, 9, 300, 65_534], size).astype(np.uint16)
    profile = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    path = write_plain(tmp_path_factory.mktemp("ids") / "other.tif", values, **profile)
    assert_array_equal(open_class_raster(path).legend.class_ids, np.unique(values))


def test_negative_nodata_is_no_class(tmp_path):
    pixels = np.full((20, 30), -9999, dtype=np.int16)
    pixels[5:, :7] = 2
    raster = open_class_raster(write_plain(tmp_path / "other.tif", pixels, nodata=-9999))
    assert (raster.nodata, raster.legend.names) == (-9999, ("class 2",))


def test_names_and_colours_come_from_the_attribute_table(tmp_path):
    write_whole(tmp_path / "map.tif", classes_of(60, 90))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        write_plain(tmp_path / "other.tif", dataset.read(1), nodata=255)
    (tmp_path / "map.tif.aux.xml").rename(tmp_path / "other.tif.aux.xml")
    assert open_class_raster(tmp_path / "other.tif").legend == LEGEND


def test_category_names_and_the_colour_table_serve_where_there_is_no_attribute_table(tmp_path):
    pixels = np.array([[0, 1, 2], [2, 3, 9]], dtype=np.uint8)
    path = write_plain(tmp_path / "other.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (1, 2, 3, 255), 9: (9, 9, 9, 255), 77: (7, 7, 7, 255)})
    (tmp_path / "other.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><CategoryNames><Category></Category>"
        "<Category>water</Category><Category>field</Category><Category>field</Category>"
        "</CategoryNames></PAMRasterBand></PAMDataset>"
    )
    legend = open_class_raster(path).legend
    assert legend.names == ("class 0", "water", "field (2)", "field (3)", "class 9")
    colors = {entry.class_id: entry.color for entry in legend}
    assert (colors[1], colors[9]) == ("#010203", "#090909")


@pytest.mark.parametrize("text", ["", "not <xml", "<PAMDataset/>"])
def test_a_side_file_that_says_nothing_does_no_harm(tmp_path, text):
    path = write_plain(tmp_path / "other.tif", np.full((5, 9), 6, dtype=np.uint8))
    (tmp_path / "other.tif.aux.xml").write_text(text)
    assert open_class_raster(path).legend.names == ("class 6",)


@pytest.mark.parametrize(
    ("pixels", "profile", "fault"),
    [
        (np.full((5, 9), -1, dtype=np.int16), {}, "hold the value -1"),
        (np.full((5, 9), 65_535, dtype=np.uint16), {}, "hold the value 65535"),
        (np.full((5, 9), 70_000, dtype=np.uint32), {}, "hold the value 70000"),
        (np.full((5, 9), 0.5, dtype=np.float32), {}, "hold the value 0.5, but class ids"),
        (np.full((5, 9), -9999, dtype=np.float32), {}, "-a_nodata -9999"),
        (np.full((5, 9), 1e30, dtype=np.float64), {}, "class ids are 0 to 65534"),
        (np.full((5, 9), np.nan, dtype=np.float64), {}, "every pixel is nodata"),
        (np.full((5, 9), 1, dtype=np.complex64), {}, "has pixels of type complex64"),
        (np.full((5, 9), 1, dtype=np.uint8), {"count": 3}, "has 3 bands"),
        (np.full((5, 9), 255, dtype=np.uint8), {"nodata": 255}, "every pixel is nodata"),
    ],
)
def test_pixels_that_are_no_classes_are_refused_in_one_line(tmp_path, pixels, profile, fault):
    path = write_plain(tmp_path / "other.tif", pixels, **profile)
    with pytest.raises(SceneError, match=fault) as caught:
        open_class_raster(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_mask_band_is_refused(tmp_path):
    path = write_plain(tmp_path / "other.tif", np.full((5, 9), 1, dtype=np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.eye(5, 9, dtype=bool))
    with pytest.raises(SceneError, match="mask band"):
        open_class_raster(path)


def test_an_alpha_band_is_refused_with_commands_that_lose_no_class(tmp_path):
    path = write_plain(tmp_path / "other.tif", np.full((5, 9), 1, dtype=np.uint8), count=2)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    with pytest.raises(SceneError, match=r"alpha band.*gdalwarp -dstnodata 255.*-b 1"):
        open_class_raster(path)


@pytest.mark.parametrize("what", ["missing", "folder", "empty", "text", "cut short"])
def test_a_file_that_is_no_raster_is_refused_in_one_line(tmp_path, what):
    path = tmp_path / "other.tif"
    if what == "folder":
        path.mkdir()
    elif what == "cut short":
        write_whole(path, classes_of(700, 900))
        path.write_bytes(path.read_bytes()[:150])
    elif what != "missing":
        path.write_text("" if what == "empty" else "not a raster")
    with pytest.raises(SceneError) as caught:
        open_class_raster(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_damaged_block_is_named_by_its_rows(tmp_path):
    path = tmp_path / "map.tif"
    write_whole(path, classes_of(1400, 900))
    data = path.read_bytes()
    path.write_bytes(data[:-3000] + bytes(3000))
    raster = open_class_raster(path)
    with raster.reader() as reader:
        reader.read(Window(col_off=0, row_off=0, width=900, height=512))
        with pytest.raises(SceneError, match=r"map\.tif: rows 1024 to 1399 cannot be read"):
            reader.read(Window(col_off=0, row_off=1024, width=900, height=376))


def test_a_legend_tag_that_is_damaged_is_said(tmp_path):
    path = write_plain(tmp_path / "other.tif", np.full((5, 9), 1, dtype=np.uint8))
    for text in ("{", '[{"class_id": 1}]'):
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(GEODINOSEG_LEGEND=text)
        with pytest.raises(SceneError, match="GEODINOSEG_LEGEND"):
            open_class_raster(path)
