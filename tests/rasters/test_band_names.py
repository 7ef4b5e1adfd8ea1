"""Which bands are red, green and blue: what files of sensors and programs say of their bands."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import write_raster

from geodinoseg.rasters.band_names import red_green_blue
from geodinoseg.rasters.scene import open_scene

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
SENTINEL_2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
PLANET = ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"]
GDAL_SENTINEL_2 = [
    f"{name}, central wavelength {nm} nm"
    for name, nm in [("B4", 665), ("B3", 560), ("B2", 490), ("B8", 842)]
]
LANDSAT = ["SR_B1", "SR_B2", "SR_B3", "SR_B4"]


@pytest.fixture
def scene(tmp_path):
    """A raster with these metadata, opened with some of its bands."""

    def make(
        names=(), *, tags=(), imagery=(), colors=(), about=None, file="s.tif", bands=None, count=0
    ):
        count = count or max(map(len, (names, tags, imagery, colors)))
        path = write_raster(tmp_path / file, np.zeros((count, 8, 9), np.uint16))
        with rasterio.open(path, "r+") as dataset:
            for band, name in enumerate(names, 1):
                dataset.set_band_description(band, name)
            for band, values in enumerate(tags, 1):
                dataset.update_tags(band, **values)
            for band, values in enumerate(imagery, 1):
                dataset.update_tags(band, ns="IMAGERY", **values)
            if colors:
                dataset.colorinterp = colors
            dataset.update_tags(**(about or {}))
        return open_scene(path, bands=bands)

    return make


def wavelengths(*values, key="wavelength"):
    return [{key: str(value)} for value in values]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"names": ["Blue", "Green", "Red", "NIR"]}, (2, 1, 0)),
        ({"names": ["Blue", "Green", "Red", "NIR"], "bands": [4, 2, 1, 3]}, (3, 1, 2)),
        ({"names": ["B", "G", "R", "N"]}, (2, 1, 0)),
        ({"names": PLANET}, (5, 3, 1)),
        ({"names": ["B8 - Near infra red", "B4 - Red", "B3 - Green", "B2 - Blue"]}, (1, 2, 3)),
        ({"names": ["red", "red edge", "green", "blue"]}, (0, 2, 3)),
        ({"names": ["Red 1", "Red 2", "green", "blue"]}, None),
        ({"tags": [{"common_name": c} for c in ("blue", "green", "red")]}, (2, 1, 0)),
        ({"tags": wavelengths(842, 665, 560, 490)}, (1, 2, 3)),
        ({"tags": wavelengths(0.49, 0.56, 0.665, key="center_wavelength")}, (2, 1, 0)),
        ({"tags": wavelengths("665.0 nm", "560.0 nm", "490.0 nm")}, (0, 1, 2)),
        ({"imagery": wavelengths(0.49, 0.56, 0.665, key="CENTRAL_WAVELENGTH_UM")}, (2, 1, 0)),
        ({"tags": wavelengths(*range(400, 1400, 5))}, (52, 32, 17)),
        ({"tags": wavelengths("nan", "inf", "-5")}, None),
        ({"names": ["620-700 nm", "520-600 nm", "450-515 nm"]}, None),
        ({"names": GDAL_SENTINEL_2}, (0, 1, 2)),
        ({"names": SENTINEL_2}, (3, 2, 1)),
        ({"names": SENTINEL_2, "bands": [4, 3, 2]}, (0, 1, 2)),
        ({"names": SENTINEL_2, "bands": [2, 8, 4, 3]}, (2, 3, 0)),
        ({"names": SENTINEL_2, "bands": [2, 8, 4]}, None),
        ({"names": ["B2", "B3", "B4", "B8"]}, None),
        ({"names": ["B2", "B3", "B4", "B8"], "file": "T33UUP_S2A.tif"}, (2, 1, 0)),
        ({"names": LANDSAT, "file": "LE07_L2SP.tif"}, (2, 1, 0)),
        ({"names": LANDSAT, "about": {"SPACECRAFT_ID": "LANDSAT_9"}}, (3, 2, 1)),
        ({"names": LANDSAT, "about": {"note": "LANDSAT_9"}}, None),
        ({"names": LANDSAT, "file": "LE07.tif", "about": {"PLATFORM": "landsat-8"}}, None),
        ({"colors": RGB}, (0, 1, 2)),
        ({"colors": RGB[::-1]}, (2, 1, 0)),
        ({"colors": RGB, "names": ["NIR", "Red", "Green"]}, None),
        ({"count": 4}, None),
    ],
)
def test_red_green_and_blue_are_told_by_what_the_file_says(given, expected, scene):
    found = red_green_blue(scene(**given))
    assert (found and found[0]) == expected


@pytest.mark.parametrize("text", ["\x01" * 9, "9" * 5000, "nm " * 5000, "b0" * 5000, "-" * 5000])
def test_text_of_any_kind_is_no_name(text, scene):
    assert red_green_blue(scene([text] * 3, tags=wavelengths(*[text] * 3))) is None
