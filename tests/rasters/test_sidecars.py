"""Files beside a raster: old ones go or stop the run, and the map reads back as it was meant."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasters import ROTATED, ConstantModel, write_raster

import geodinoseg
from geodinoseg.errors import OutputError, OutputExistsError
from geodinoseg.rasters.sidecars import check_sidecars, raster_sidecars
from geodinoseg.windows import Window

OLD = (
    "map.tif.aux.xml",
    "map.tif.ovr",
    "map.tif.msk",
    "map.tif.msk.ovr",
    "map.tif.vat.dbf",
    "map.tfw",
    "map.TFW",
    "map.qml",
    "map.tif.xml",
)
FOREIGN = ("map.tiff", "map.gpkg", "map_2.tif.ovr", "Map.qml", "map.shp", "map.cpg")


@pytest.fixture
def scene(tmp_path):
    pixels = np.random.default_rng(2).integers(1, 250, (1, 600, 430)).astype(np.uint8)
    return write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED)


@pytest.fixture
def segment(scene, tmp_path):
    def run(**options):
        model = ConstantModel((0.2, 0.8))
        return geodinoseg.segment_scene(scene, model, tmp_path / "map.tif", **options)

    return run


def test_sidecars_are_found_by_name_and_stem_and_others_are_not(tmp_path):
    for name in (*OLD, *FOREIGN, "map.tif"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in raster_sidecars(tmp_path / "map.tif")] == sorted(OLD)


@pytest.mark.parametrize("name", OLD)
def test_an_old_sidecar_stops_a_run_before_the_work_and_goes_with_overwrite(
    name, segment, tmp_path
):
    (tmp_path / name).write_text("old")
    with pytest.raises(OutputExistsError, match=r"exists already, and would be read as part of"):
        segment()
    assert (tmp_path / name).read_text() == "old"
    assert not (tmp_path / "map.tif").exists()
    segment(overwrite=True)
    left = tmp_path / name
    assert not left.exists() or left.read_text() != "old"


@pytest.mark.parametrize("name", ["map.wld", "map.tab", "map_rpc.txt", "map.RPB"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_may_belong_to_another_is_never_removed(name, overwrite, segment, tmp_path):
    (tmp_path / name).write_text("1\n0\n0\n-1\n0\n0\n")
    with pytest.raises(OutputError, match=f"{name} lies beside it"):
        segment(overwrite=overwrite)
    assert (tmp_path / name).exists()


def test_a_style_of_the_users_own_beside_a_new_map_is_not_replaced(segment, tmp_path):
    (tmp_path / "map.qml").write_text("<qgis/>")
    with pytest.raises(OutputExistsError, match=r"map\.qml: exists already"):
        segment()
    assert (tmp_path / "map.qml").read_text() == "<qgis/>"


def test_an_old_map_with_overviews_mask_and_metadata_leaves_nothing_in_the_new(
    segment, scene, tmp_path
):
    old = np.full((1, 600, 430), 7, np.uint8)
    outputs = [tmp_path / "map.tif", tmp_path / "sure.tif"]
    for path in outputs:
        write_raster(path, old, transform=rasterio.Affine(99, 0, 0, 0, -99, 0), crs="EPSG:3857")
        with (
            rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False),
            rasterio.open(path, "r+") as dataset,
        ):
            dataset.build_overviews([2, 4], Resampling.nearest)
            dataset.write_mask(np.zeros((600, 430), np.uint8))
        path.with_name(f"{path.name}.aux.xml").write_text(
            "<PAMDataset><SRS>EPSG:4326</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform></PAMDataset>"
        )
    segment(confidence=outputs[1], overwrite=True)
    with rasterio.open(scene) as source:
        for path, value in zip(outputs, (1, 80), strict=True):
            with rasterio.open(path) as dataset:
                assert dataset.crs == source.crs
                assert dataset.transform == source.transform
                assert set(np.unique(dataset.read(1, out_shape=(75, 54)))) == {value}
                assert (dataset.read_masks(1) == 255).all()
                names = {file.rpartition("/")[2] for file in dataset.files}
                assert names <= {path.name, f"{path.name}.aux.xml"}


CANNOT_BE_HELD_BY_GEOTIFF = (
    "+proj=eqearth +datum=WGS84",
    "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 "
    "+to_meter=0.0174532925199433",
)


@pytest.mark.parametrize("crs", CANNOT_BE_HELD_BY_GEOTIFF)
def test_a_crs_that_geotiff_cannot_hold_survives_beside_the_attribute_table(crs, tmp_path):
    pixels = np.random.default_rng(2).integers(1, 250, (1, 60, 43)).astype(np.uint8)
    transform = rasterio.Affine(1e-4, 0, 1, 0, -1e-4, 2)
    scene = write_raster(tmp_path / "s.tif", pixels, transform=transform, crs=crs)
    geodinoseg.segment_scene(
        scene, ConstantModel((0.2, 0.8)), tmp_path / "map.tif", confidence=True, probabilities=True
    )
    with rasterio.open(scene) as source:
        for name in ("map.tif", "map_confidence.tif", "map_probabilities.tif"):
            with rasterio.open(tmp_path / name) as dataset:
                assert dataset.crs == source.crs is not None
                assert dataset.transform == source.transform
    table = (tmp_path / "map.tif.aux.xml").read_text()
    assert "GDALRasterAttributeTable" in table
    assert "SRS" in table


POINTS = [
    GroundControlPoint(0, 0, 500_000, 5_000_000, 3.0),
    GroundControlPoint(0, 43, 500_430, 5_000_010, 0.0),
    GroundControlPoint(60, 0, 500_010, 4_999_400, 0.0),
    GroundControlPoint(60, 43, 500_445, 4_999_410, 1.0),
]
COEFFICIENTS = RPC(
    height_off=0,
    height_scale=100,
    lat_off=45,
    lat_scale=1,
    line_off=30,
    line_scale=30,
    long_off=10,
    long_scale=1,
    samp_off=21,
    samp_scale=21,
    line_num_coeff=[0, 0, -1, *[0] * 17],
    line_den_coeff=[1, *[0] * 19],
    samp_num_coeff=[0, 1, *[0] * 18],
    samp_den_coeff=[1, *[0] * 19],
)


@pytest.fixture
def control_scene(tmp_path):
    def write(*, gcps=None, rpcs=None):
        path = tmp_path / "raw.tif"
        pixels = np.random.default_rng(2).integers(1, 250, (60, 43)).astype(np.uint8)
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(
                path, "w", driver="GTiff", height=60, width=43, count=1, dtype="uint8"
            ) as dataset,
        ):
            dataset.write(pixels, 1)
            if gcps:
                dataset.gcps = (gcps, "EPSG:32633")
            if rpcs:
                dataset.rpcs = rpcs
        return path

    return write


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_and_rpcs_are_carried_over_to_every_raster(control_scene, tmp_path):
    scene = control_scene(gcps=POINTS, rpcs=COEFFICIENTS)
    geodinoseg.segment_scene(
        scene, ConstantModel((0.2, 0.8)), tmp_path / "map.tif", confidence=True, probabilities=True
    )
    with rasterio.open(scene) as source:
        rpcs = source.rpcs
    for name in ("map.tif", "map_confidence.tif", "map_probabilities.tif"):
        with rasterio.open(tmp_path / name) as dataset:
            points, crs = dataset.gcps
            assert crs == rasterio.crs.CRS.from_epsg(32633)
            found = [(p.row, p.col, p.x, p.y, p.z) for p in points]
            assert found == [(p.row, p.col, p.x, p.y, p.z) for p in POINTS]
            assert dataset.rpcs == rpcs
            assert dataset.crs is None


def test_points_give_the_ground_resolution_and_move_with_a_window(control_scene):
    geobox = geodinoseg.open_scene(control_scene(gcps=POINTS)).geobox
    assert geobox.pixel_size_m == pytest.approx(10.05, abs=0.1)
    inside = geobox.crop(Window(col_off=7, row_off=5, width=9, height=9))
    assert inside.control.points[0][:2] == (-5, -7)


@pytest.mark.parametrize(
    ("control", "advice"), [("gcps", "gdalwarp -tps"), ("rpcs", "gdalwarp -rpc")]
)
def test_polygons_of_such_a_scene_are_refused_before_the_work_with_the_way_out(
    control, advice, control_scene, tmp_path
):
    scene = control_scene(**{control: POINTS if control == "gcps" else COEFFICIENTS})
    with pytest.raises(geodinoseg.GeodinosegError, match=advice):
        geodinoseg.segment_scene(
            scene, ConstantModel((0.2, 0.8)), tmp_path / "m.tif", polygons=[tmp_path / "p.gpkg"]
        )
    assert not (tmp_path / "m.tif").exists()


def test_a_sidecar_in_another_case_of_the_stem_is_not_ours(tmp_path):
    (tmp_path / "MAP.qml").write_text("x")
    check_sidecars(tmp_path / "map.tif", overwrite=False)
