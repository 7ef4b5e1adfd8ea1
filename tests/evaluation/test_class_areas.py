"""Areas by class are those of all pixels, in any CRS."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from coverages import NODATA, blobs, write_class_raster

from geodinoseg.evaluation.class_areas import areas_table, measure_areas
from geodinoseg.polygons.polygonize import polygonize

PLACES = {
    "metres": ("EPSG:32633", Affine(0.5, 0, 330_000, 0, -0.5, 3_060_000)),
    "degrees": ("EPSG:4326", Affine(0.01, 0, 85, 0, -0.01, 67)),
    "no CRS": (None, Affine(0.5, 0, 100, 0, -0.5, 200)),
}


@pytest.mark.parametrize("place", PLACES)
def test_areas_are_those_of_the_polygons(tmp_path, place):
    crs, transform = PLACES[place]
    array = blobs(60, 77)
    path = write_class_raster(tmp_path / "map.tif", array, crs=crs, transform=transform)
    areas = measure_areas(path)
    assert [area.class_id for area in areas] == list(range(8))
    assert [area.pixels for area in areas] == np.bincount(
        array[array != NODATA], minlength=8
    ).tolist()
    assert sum(area.fraction for area in areas) == pytest.approx(1)
    if crs is None:
        assert {area.area_m2 for area in areas} == {None}
        assert "area" not in areas_table(areas)
        return
    found = polygonize(path).groupby("class_id").area_m2.sum()
    assert {area.class_id: area.area_m2 for area in areas if area.pixels} == pytest.approx(
        found.to_dict()
    )
    in_ha = place == "degrees"
    assert ("area, ha" in areas_table(areas)) == in_ha


def test_a_map_of_nodata_has_no_area(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", np.full((5, 7), NODATA, np.uint8))
    assert {(area.pixels, area.area_m2, area.fraction) for area in measure_areas(path)} == {
        (0, 0.0, 0.0)
    }
