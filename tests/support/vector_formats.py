"""The same three polygons in the vector formats of other programs."""

from __future__ import annotations

import zipfile

import geopandas
import numpy as np
import pyproj
from label_files import HEIGHT, UTM, WIDTH, ground, square, write

from geodinoseg.labels.classes import IGNORE
from geodinoseg.windows import Window

CELLS = [square(5, 5), square(30, 30, 20), square(60, 20)]


NAMES = ["a", "b", "a"]


ALL = Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT)


def expected():
    channels = np.full((HEIGHT, WIDTH), IGNORE)
    channels[5:15, 5:15] = channels[20:30, 60:70] = 0
    channels[30:50, 30:50] = 1
    return channels


def kml(path):
    to_degrees = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    marks = []
    for cell, name in zip(ground(CELLS), NAMES, strict=True):
        lon, lat = to_degrees.transform(*np.array(cell.exterior.coords).T)
        ring = " ".join(f"{x:.12f},{y:.12f},1400" for x, y in zip(lon, lat, strict=True))
        marks.append(
            f'<Placemark><ExtendedData><SchemaData schemaUrl="#s"><SimpleData name="crop">{name}'
            f"</SimpleData></SchemaData></ExtendedData><Polygon><altitudeMode>absolute</altitudeMode>"
            f"<outerBoundaryIs><LinearRing><coordinates>{ring}</coordinates></LinearRing>"
            f"</outerBoundaryIs></Polygon></Placemark>"
        )
    path.write_text(
        '<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
        '<Schema name="s" id="s"><SimpleField name="crop" type="string"/></Schema>'
        f"<Folder><name>fields</name>{''.join(marks)}</Folder></Document></kml>"
    )
    return path


def zipped(path):
    write(path.parent / "inside.shp", CELLS, crop=NAMES)
    with zipfile.ZipFile(path, "w") as archive:
        for part in path.parent.glob("inside.*"):
            archive.write(part, part.name)
    return path


def geodatabase(path):
    frame = geopandas.GeoDataFrame({"crop": NAMES}, geometry=list(ground(CELLS)), crs=UTM)
    frame.to_file(path, driver="OpenFileGDB")
    return path
