"""Raster files that would have GDAL ask a server or open other files."""

from __future__ import annotations

import numpy as np
import rasterio
import rasterio.shutil
from rasters import NORTH_UP, write_raster

HEIGHT, WIDTH = 48, 61


PIXELS = np.random.default_rng(5).integers(1, 255, (3, HEIGHT, WIDTH), dtype=np.uint8)


RECTS = (
    f'<SrcRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/>'
    f'<DstRect xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"/>'
)


def vrt(inside: str, *, attributes: str = "", bands: bool = False) -> str:
    band = inside if bands else f'<VRTRasterBand dataType="Byte" band="1">{inside}</VRTRasterBand>'
    return (
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"{attributes}>'
        f"<SRS>EPSG:32633</SRS><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform>{band}</VRTDataset>"
    )


def source(name: str, *, relative: int = 1, more: str = "") -> str:
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'
        f"{more}<SourceBand>1</SourceBand>{RECTS}</SimpleSource>"
    )


def wms(url: str) -> str:
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl>'
        "</Service><DataWindow><UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY>"
        "<LowerRightX>20037508</LowerRightX><LowerRightY>-20037508</LowerRightY>"
        "<TileLevel>1</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY>"
        "<YOrigin>top</YOrigin></DataWindow><Projection>EPSG:3857</Projection>"
        "<BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY><BandsCount>3</BandsCount>"
        "</GDAL_WMS>"
    )


def plain(folder, name="plain.tif", **profile):
    return write_raster(folder / name, PIXELS, transform=NORTH_UP, **profile)


def text(folder, name, content):
    (folder / name).write_text(content)
    return folder / name


def beside(folder, suffix, content):
    """A plain raster with a file beside it."""
    text(folder, f"plain.tif{suffix}", content)
    return plain(folder)


def overview_in_header(folder, url):
    path = plain(folder)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{url}/o.tif")
    return path


def two_in_one(folder, url):
    """A TIFF that GDAL takes for a VRT, since the word stands near its start."""
    path = plain(folder)
    content = path.read_bytes()
    (folder / "both.tif").write_bytes(content[:8] + content[8:])
    with rasterio.open(folder / "both.tif", "r+") as dataset:
        dataset.update_tags(A="<VRTDataset")
    head = (folder / "both.tif").read_bytes()
    # The tag goes to the end of the file; a strip of pixels near its start holds the word too.
    at = head.index(PIXELS[0, :1].tobytes()[:16]) if PIXELS[0, :1].tobytes()[:16] in head else 600
    (folder / "both.tif").write_bytes(head[:at] + b"<VRTDataset>" + head[at + 12 :])
    return text(folder, "made.vrt", vrt(source("both.tif")))


REACHING = {
    "a web service called tif": lambda f, u: text(f, "a.tif", wms(u)),
    "a VRT of an address, called tif": lambda f, u: text(
        f, "a.tif", vrt(source(f"/vsicurl/{u}/a.tif", relative=0))
    ),
    "a VRT of a URL": lambda f, u: text(f, "a.vrt", vrt(source(f"{u}/a.tif", relative=0))),
    "a VRT of a bucket": lambda f, u: text(f, "a.vrt", vrt(source("/vsis3/b/a.tif", relative=0))),
    "a VRT of a relative address": lambda f, u: text(f, "a.vrt", vrt(source(f"/vsicurl/{u}/a"))),
    "a VRT of a web service": lambda f, u: (
        text(f, "w.tif", wms(u)),
        text(f, "a.vrt", vrt(source("w.tif"))),
    )[1],
    "a VRT of a web service written into it": lambda f, u: text(
        f, "a.vrt", vrt(source(wms(u).replace("<", "&lt;"), relative=0))
    ),
    "a VRT of a VRT of an address": lambda f, u: (
        text(f, "b.vrt", vrt(source(f"/vsicurl/{u}/a.tif", relative=0))),
        text(f, "a.vrt", vrt(source("b.vrt"))),
    )[1],
    "a VRT of itself": lambda f, u: (
        text(f, "b.vrt", vrt(source("c.vrt"))),
        text(f, "c.vrt", vrt(source("d.vrt"))),
        text(f, "d.vrt", vrt(source("e.vrt"))),
        text(f, "e.vrt", vrt(source("b.vrt"))),
    )[0],
    "a raw band": lambda f, u: (
        text(f, "secret.txt", "x" * 9999),
        text(
            f,
            "a.vrt",
            vrt(
                '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
                '<SourceFilename relativetoVRT="1">secret.txt</SourceFilename></VRTRasterBand>',
                bands=True,
            ),
        ),
    )[1],
    "Python": lambda f, u: (
        plain(f),
        text(
            f,
            "a.vrt",
            vrt(
                '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
                "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
                "<PixelFunctionType>f</PixelFunctionType>"
                f"<PixelFunctionCode>open('ran','w')</PixelFunctionCode>{source('plain.tif')}"
                "</VRTRasterBand>",
                bands=True,
            ),
        ),
    )[1],
    "a pixel function": lambda f, u: (
        plain(f),
        text(
            f,
            "a.vrt",
            vrt(
                '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
                f"<PixelFunctionType>real</PixelFunctionType>{source('plain.tif')}"
                "</VRTRasterBand>",
                bands=True,
            ),
        ),
    )[1],
    "open options": lambda f, u: (
        plain(f),
        text(
            f,
            "a.vrt",
            vrt(source("plain.tif", more='<OpenOptions><OOI key="A">B</OOI></OpenOptions>')),
        ),
    )[1],
    "a processed dataset": lambda f, u: text(
        f, "a.vrt", vrt("", attributes=' subClass="VRTProcessedDataset"')
    ),
    "an address as an attribute": lambda f, u: text(
        f, "a.vrt", vrt(f'<SimpleSource SourceFilename="/vsicurl/{u}/a.tif">{RECTS}</SimpleSource>')
    ),
    "small letters": lambda f, u: text(
        f, "a.vrt", vrt(source(f"/vsicurl/{u}/a.tif")).replace("SourceFilename", "sourcefilename")
    ),
    "an address behind a comment": lambda f, u: (
        plain(f),
        text(f, "a.vrt", vrt(source(f"/vsicurl/{u}/<!-- -->a.tif"))),
    )[1],
    "an address in CDATA": lambda f, u: text(
        f, "a.vrt", vrt(source(f"<![CDATA[/vsicurl/{u}/a.tif]]>"))
    ),
    "entities": lambda f, u: text(
        f,
        "a.vrt",
        '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>' + vrt(source("&c;")),
    ),
    "an external entity": lambda f, u: text(
        f, "a.vrt", f'<!DOCTYPE a [<!ENTITY b SYSTEM "{u}/a.xml">]>' + vrt(source("&b;"))
    ),
    "a processing instruction": lambda f, u: text(f, "a.vrt", vrt("<?php a ?>" + source("a.tif"))),
    "elements without end": lambda f, u: text(f, "a.vrt", "<VRTDataset>" + "<Metadata>" * 99_999),
    "a text without end": lambda f, u: text(
        f, "a.vrt", f"<VRTDataset><SRS>{'a' * 3_000_000}</SRS></VRTDataset>"
    ),
    "a coordinate system at an address": lambda f, u: (
        plain(f),
        text(f, "a.vrt", vrt(source("plain.tif")).replace("EPSG:32633", f"{u}/crs")),
    )[1],
    "a coordinate system in a file": lambda f, u: (
        plain(f),
        text(f, "a.vrt", vrt(source("plain.tif")).replace("EPSG:32633", "/etc/passwd")),
    )[1],
    "an overview at an address, in a VRT": lambda f, u: (
        plain(f),
        text(
            f,
            "a.vrt",
            vrt(
                f'</VRTRasterBand><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{u}</MDI>'
                f'</Metadata><VRTRasterBand dataType="Byte" band="1">{source("plain.tif")}'
            ),
        ),
    )[1],
    "overviews that are a VRT": lambda f, u: beside(
        f, ".ovr", vrt(source(f"/vsicurl/{u}/o.tif", relative=0))
    ),
    "overviews in capital letters": lambda f, u: beside(
        f, ".OVR", vrt(source(f"/vsicurl/{u}/o.tif", relative=0))
    ),
    "overviews of a mask that are a web service": lambda f, u: beside(f, ".msk.ovr", wms(u)),
    "a mask that is a VRT": lambda f, u: beside(
        f, ".msk", vrt(source(f"/vsicurl/{u}/m.tif", relative=0))
    ),
    "an overview at an address, in a side file": lambda f, u: beside(
        f,
        ".aux.xml",
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
        f"/vsicurl/{u}/o.tif</MDI></Metadata></PAMDataset>",
    ),
    "an overview at an address, in the header": overview_in_header,
    "an overview at an address, in the header of a source": lambda f, u: (
        overview_in_header(f, u),
        text(f, "a.vrt", vrt(source("plain.tif"))),
    )[1],
    "a geolocation at an address": lambda f, u: beside(
        f,
        ".aux.xml",
        '<PAMDataset><Metadata domain="GEOLOCATION"><MDI key="X_DATASET">'
        f"/vsicurl/{u}/x.tif</MDI></Metadata></PAMDataset>",
    ),
    "two formats in one file": two_in_one,
    "text in place of a name": lambda f, u: vrt(source(f"/vsicurl/{u}/a.tif", relative=0)),
    "a file that describes a sparse one": lambda f, u: (
        "/vsisparse/"
        + str(
            text(
                f,
                "a.xml",
                f"<VSISparseFile><SubfileRegion><Filename>/vsicurl/{u}/a.tif</Filename>"
                "<DestinationOffset>0</DestinationOffset><SourceOffset>0</SourceOffset>"
                "<RegionLength>999</RegionLength></SubfileRegion></VSISparseFile>",
            )
        )
    ),
    "a tile index": lambda f, u: text(
        f,
        "a.tif",
        f"<GDALTileIndexDataset><IndexDataset>{u}/a.fgb</IndexDataset></GDALTileIndexDataset>",
    ),
    "an MRF that fetches": lambda f, u: text(
        f,
        "a.tif",
        f"<MRF_META><CachedSource><Source>/vsicurl/{u}/a.tif</Source></CachedSource>"
        '<Raster><Size x="61" y="48" c="3"/></Raster></MRF_META>',
    ),
    "a driver's prefix": lambda f, u: f"WMS:{u}?LAYERS=a",
    "a VRT by its prefix": lambda f, u: f"vrt:///vsicurl/{u}/a.tif?bands=1",
}
