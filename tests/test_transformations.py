"""When two CRSs put the same coordinates at the same place."""

from __future__ import annotations

import pyproj
import pytest
from rasterio.crs import CRS

from geodinoseg.transformations import same_place

# As an older version of the EPSG database has it.
TM35FIN = (
    'PROJCS["EUREF-FIN / TM35FIN(E,N)",GEOGCS["EUREF-FIN",DATUM["EUREF-FIN",'
    'SPHEROID["GRS 1980",6378137,298.257222101]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",27],'
    'PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH],'
    'AUTHORITY["EPSG","3067"]]'
)
MARS = (
    'PROJCS["Mars",GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,169.894447223612]],'
    'PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]],PROJECTION["Sinusoidal"],'
    'PARAMETER["longitude_of_center",0],PARAMETER["false_easting",0],PARAMETER["false_northing",0],'
    'UNIT["metre",1],AXIS["{axis}",{direction}],AXIS["Northing",NORTH]{code}]'
)


def mars(direction="EAST", code=""):
    return MARS.format(axis=f"{direction}ing", direction=direction, code=code)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TM35FIN, "EPSG:3067"),
        ("EPSG:5118", pyproj.CRS.from_epsg(5118)),
        ("EPSG:4979", "EPSG:4326"),
        ("EPSG:7415", "EPSG:28992"),
        (mars(), mars(code=',AUTHORITY["IAU","49920"]')),
        ("+proj=utm +zone=33 +datum=WGS84", "EPSG:32633"),
    ],
)
def test_names_codes_and_heights_do_not_matter(one, other):
    assert same_place(CRS.from_user_input(one), other)
    assert same_place(other, CRS.from_user_input(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("EPSG:3067", "EPSG:3126"),
        ("EPSG:4267", "EPSG:4326"),
        ("EPSG:2263", "EPSG:32118"),
        (mars(), mars("WEST")),
        ("EPSG:4326", "EPSG:4807"),
        ("+proj=utm +zone=33 +datum=WGS84 +units=km", "EPSG:32633"),
        ("EPSG:32633", "EPSG:32634"),
    ],
)
def test_another_place_is_told(one, other):
    assert not same_place(CRS.from_user_input(one), other)
    assert not same_place(other, CRS.from_user_input(one))
