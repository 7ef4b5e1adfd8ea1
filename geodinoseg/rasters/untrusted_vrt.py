"""Checks of untrusted VRTs: only mosaics, stacks and warps of local rasters are opened.

Elements and attributes must be on a list of harmless ones; all others (raw bands, pixel functions,
Python, open options, DEMs, geolocation arrays) need --allow-external. The file is parsed as a
stream, so that neither its size nor its depth costs memory.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

_LARGEST_BYTES = 512 << 20
_MOST_SOURCES = 200_000
_DEEPEST_ELEMENT = 24
_LONGEST_TEXT = 1 << 20
_PIECE_BYTES = 1 << 16

_ELEMENT_NAMES = """
    VRTDataset SRS GeoTransform GCPList GCP Metadata MDI BlockXSize BlockYSize OverviewList
    VRTRasterBand Description UnitType Offset Scale ColorInterp ColorTable Entry CategoryNames
    Category NoDataValue HideNoDataValue Histograms HistItem HistMin HistMax BucketCount
    IncludeOutOfRange Approximate HistCounts MaskBand Overview
    GDALRasterAttributeTable FieldDefn Name Type Usage Row F
    SimpleSource ComplexSource AveragedSource KernelFilteredSource NoDataFromMaskSource
    SourceFilename SourceBand SourceProperties SrcRect DstRect NODATA UseMaskBand LUT ScaleOffset
    ScaleRatio ColorTableComponent Exponent SrcMin SrcMax DstMin DstMax Clamp Kernel Size Coefs
    MaskValueThreshold RemappedValue
    GDALWarpOptions WarpMemoryLimit ResampleAlg WorkingDataType Option SourceDataset Transformer
    ApproxTransformer MaxError BaseTransformer GenImgProjTransformer SrcGeoTransform
    SrcInvGeoTransform DstGeoTransform DstInvGeoTransform SrcGCPTransformer SrcTPSTransformer
    GCPTransformer TPSTransformer Order Reversed Refine ReprojectTransformer
    ReprojectionTransformer SourceSRS TargetSRS Options BandList BandMapping SrcNoDataReal
    SrcNoDataImag DstNoDataReal DstNoDataImag SrcAlphaBand DstAlphaBand Cutline CutlineBlendDist
    SrcOvrLevel CheckWithInvertPROJ SourceCS TargetCS
    PansharpeningOptions Algorithm AlgorithmOptions Weights Resampling NumThreads BitDepth
    SpatialExtentAdjustment PanchroBand SpectralBand NoData
    """
_ELEMENTS = frozenset(_ELEMENT_NAMES.split())
_ATTRIBUTE_NAMES = """
    rasterXSize rasterYSize blockXSize blockYSize subClass dataType band
    dataAxisToSRSAxisMapping coordinateEpoch
    Projection Id Info Pixel Line X Y Z key domain c1 c2 c3 c4 index tableType Row0Min BinSize
    relativeToVRT shared RasterXSize RasterYSize DataType BlockXSize BlockYSize xOff yOff xSize
    ySize resampling name src dst dstBand normalized mode
    """
_ATTRIBUTES = frozenset(_ATTRIBUTE_NAMES.split())
_SUBCLASSES = {
    "VRTDataset": {"VRTWarpedDataset", "VRTPansharpenedDataset"},
    "VRTRasterBand": {"VRTSourcedRasterBand", "VRTWarpedRasterBand", "VRTPansharpenedRasterBand"},
}
_SOURCES = {"SourceFilename", "SourceDataset"}
_SRS = {"SRS", "SourceSRS", "TargetSRS", "SourceCS", "TargetCS"}
# WKT, a code, or a PROJ string without grids: never a file or an address.
_PLAIN_SRS = re.compile(r"[A-Z_]+\s*\[|(EPSG|ESRI|OGC|IGNF):\w+$|urn:ogc:def:crs:|\+proj=")
_SRS_FILES = re.compile(r"grids?=(?!@null\b)|file=|://|\+init", re.IGNORECASE)
# GDAL opens the files named by these metadata items.
METADATA_PATHS = {"OVERVIEW_FILE", "X_DATASET", "Y_DATASET"}


class VrtError(Exception):
    """Why a VRT is not opened: a clause that follows `FILE: `."""


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    text: list[str] = field(default_factory=list)
    length: int = 0
    has_children: bool = False


def vrt_sources(path: str) -> list[str]:
    """The distinct source files of a local VRT; VrtError if it contains anything else.

    Returns:
        Paths, absolute or relative to the working directory; the files are not checked.
    """
    if os.path.getsize(path) > _LARGEST_BYTES:
        raise VrtError("is a VRT of more than 512 MB")
    reader = _VrtReader(os.path.dirname(path))
    with Path(path).open("rb") as handle:
        while piece := handle.read(_PIECE_BYTES):
            reader.feed(piece)
    return reader.close()


class _VrtReader:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: list[_Element] = []
        self._sources: dict[str, None] = {}
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.CommentHandler = self._comment
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.ProcessingInstructionHandler = self._refuse_instruction
        self._parser.StartCdataSectionHandler = self._refuse_cdata
        self._parser.XmlDeclHandler = self._declaration

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.Parse(piece, False)  # noqa: FBT003 (expat's signature)
        except expat.ExpatError as error:
            raise VrtError(f"is a VRT that is damaged or not XML ({error})") from error

    def close(self) -> list[str]:
        try:
            self._parser.Parse(b"", True)  # noqa: FBT003
        except expat.ExpatError as error:
            raise VrtError(f"is a VRT that is damaged or not XML ({error})") from error
        return list(self._sources)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._open and name != "VRTDataset":
            raise VrtError(f"is XML of another format ({name[:40]})")
        if len(self._open) >= _DEEPEST_ELEMENT:
            raise VrtError(f"is a VRT with elements nested more than {_DEEPEST_ELEMENT} deep")
        if self._open:
            self._open[-1].has_children = True
        _check_element(name, attributes)
        self._open.append(_Element(name, attributes))

    def _end(self, name: str) -> None:
        element = self._open.pop()
        text = "".join(element.text)
        # Of text split by elements or comments GDAL takes the first piece, XML parsers the whole.
        if element.has_children and text.strip():
            raise VrtError(f"is a VRT with text beside elements in {name}")
        if name in _SRS:
            _check_srs(text)
        if name in _SOURCES:
            self._add_source(text, element.attributes.get("relativeToVRT", "0"))

    def _characters(self, text: str) -> None:
        element = self._open[-1]
        element.length += len(text)
        if element.length > _LONGEST_TEXT:
            raise VrtError(f"is a VRT with a {element.name} of more than a million characters")
        element.text.append(text)

    def _comment(self, _: str) -> None:
        if self._open:
            self._open[-1].has_children = True

    def _add_source(self, name: str, relative: str) -> None:
        if name != name.strip() or not name or relative not in {"0", "1"}:
            raise VrtError(f"is a VRT with the source {name[:80]!r}")
        if is_not_a_file_name(name):
            raise VrtError(f"is a VRT that reads {name[:200]}")
        path = os.path.join(self._folder, name) if relative == "1" else name
        self._sources[path] = None
        if len(self._sources) > _MOST_SOURCES:
            raise VrtError(f"is a VRT of more than {_MOST_SOURCES:,} files")

    def _refuse_doctype(self, *_: object) -> None:
        raise VrtError("is a VRT with a document type, which may define entities")

    def _refuse_instruction(self, target: str, _: str) -> None:
        raise VrtError(f"is a VRT with a processing instruction ({target[:40]})")

    def _refuse_cdata(self) -> None:
        raise VrtError("is a VRT with a CDATA section")

    def _declaration(self, _: str, encoding: str | None, __: int) -> None:
        # GDAL ignores the declared encoding.
        if encoding is not None and encoding.upper() not in {"UTF-8", "US-ASCII"}:
            raise VrtError(f"is a VRT in {encoding[:40]}, not in UTF-8")


def is_not_a_file_name(name: str) -> bool:
    """Whether GDAL does not take a name as a file: a handler, an address, a prefix."""
    if name.startswith(("/vsi", "<", "{")) or "://" in name:
        return True
    # `WMS:...`, `GTIFF_DIR:1:...`, but not a folder with a colon in its name.
    return re.match(r"[A-Za-z][A-Za-z0-9_]+:", name) is not None


def _check_element(name: str, attributes: dict[str, str]) -> None:
    if name not in _ELEMENTS:
        raise VrtError(f"is a VRT with {name[:60]}")
    for key, value in attributes.items():
        if key not in _ATTRIBUTES:
            raise VrtError(f"is a VRT with {key[:60]} in {name}")
        if key == "subClass" and value not in _SUBCLASSES.get(name, set()):
            raise VrtError(f"is a VRT with a {value[:60]}")
    item = attributes.get("key", "").upper()
    if name == "MDI" and item in METADATA_PATHS:
        raise VrtError(f"is a VRT whose metadata refers to another file ({item})")


def _check_srs(text: str) -> None:
    text = text.strip()
    if text and (_PLAIN_SRS.match(text) is None or _SRS_FILES.search(text)):
        raise VrtError(
            f"is a VRT with a coordinate system that is not WKT or a code ({text[:60]!r})"
        )
