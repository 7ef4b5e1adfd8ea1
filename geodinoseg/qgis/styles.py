"""Styles for QGIS: `.qml` files, and the attribute table that names a raster's classes.

The functions return text. QGIS reads the `.qml` of a layer's stem first; from 3.30 on it reads the
raster attribute table where there is none.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from geodinoseg.legend import Legend, LegendClass

# The oldest version that the styles were tested with; later ones read them too.
_QGIS_VERSION = "3.22"
_QML_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
# Viridis at quarters: perceptually even, in grey and to colour-blind readers too.
_CONFIDENCE_RAMP = {0: "#440154", 25: "#3b528b", 50: "#21918c", 75: "#5ec962", 100: "#fde725"}
_CONFIDENCE_NODATA = 255
# Category names are a list by position: larger ids would take megabytes of blanks.
_LARGEST_NAMED_POSITION = 255
# name, type (0 integer, 2 string), usage (GDALRATFieldUsage: 5 value, 2 name, 6 to 9 RGBA).
_TABLE_COLUMNS = (
    ("Value", 0, 5),
    ("Class", 2, 2),
    ("Red", 0, 6),
    ("Green", 0, 7),
    ("Blue", 0, 8),
    ("Alpha", 0, 9),
)


def raster_qml(legend: Legend) -> str:
    """The `.qml` of a class raster: one named colour per class, everything else transparent."""
    root = _qgis_root()
    renderer = _raster_renderer(root, "paletted")
    palette = ET.SubElement(renderer, "colorPalette")
    for entry in legend.classes:
        ET.SubElement(
            palette,
            "paletteEntry",
            value=str(entry.class_id),
            color=entry.color,
            alpha="255",
            label=entry.name,
        )
    return qml_text(root)


def confidence_qml() -> str:
    """The `.qml` of a confidence raster: a ramp from 0 to 100 percent; nodata (255) transparent.

    Without it QGIS stretches the values of each raster differently, in grey.
    """
    low, high = str(min(_CONFIDENCE_RAMP)), str(max(_CONFIDENCE_RAMP))
    root = _qgis_root()
    renderer = _raster_renderer(
        root, "singlebandpseudocolor", classificationMin=low, classificationMax=high
    )
    transparency = ET.SubElement(renderer, "rasterTransparency")
    clear = ET.SubElement(transparency, "singleValuePixelList")
    nodata = str(_CONFIDENCE_NODATA)
    ET.SubElement(clear, "pixelListEntry", min=nodata, max=nodata, percentTransparent="100")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        minimumValue=low,
        maximumValue=high,
        clip="0",
    )
    for percent, color in _CONFIDENCE_RAMP.items():
        label = f"{percent} %"
        ET.SubElement(shader, "item", value=str(percent), color=color, alpha="255", label=label)
    return qml_text(root)


def vector_qml(legend: Legend) -> str:
    """The `.qml` of a polygon layer, by its field `class_name`: one fill per class."""
    root = _qgis_root()
    symbols = [(entry.name, [_fill_properties(entry)]) for entry in legend.classes]
    add_categorized_renderer(root, "class_name", symbols, kind="fill", layer_class="SimpleFill")
    return qml_text(root)


def add_categorized_renderer(
    root: ET.Element,
    attribute: str,
    symbols: Iterable[tuple[str, Sequence[dict[str, str]]]],
    *,
    kind: str,
    layer_class: str,
) -> None:
    """Add a renderer with one symbol per value of an attribute.

    Args:
        root: the `qgis` element.
        attribute: a field or an expression.
        symbols: values, which are their own labels, and the properties of the layers of their
            symbols, the lowest first.
        kind: of the symbols: fill or marker.
        layer_class: of their layers: SimpleFill or SimpleMarker.
    """
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr=attribute,
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    categories = ET.SubElement(renderer, "categories")
    parent = ET.SubElement(renderer, "symbols")
    for index, (value, layers) in enumerate(symbols):
        ET.SubElement(
            categories,
            "category",
            symbol=str(index),
            value=value,
            label=value,
            type="string",
            render="true",
        )
        symbol = ET.SubElement(
            parent,
            "symbol",
            name=str(index),
            type=kind,
            alpha="1",
            clip_to_extent="1",
            force_rhr="0",
        )
        for properties in layers:
            _add_symbol_layer(symbol, layer_class, properties)


def _add_symbol_layer(symbol: ET.Element, layer_class: str, properties: dict[str, str]) -> None:
    layer = ET.SubElement(
        symbol, "layer", {"class": layer_class, "enabled": "1", "locked": "0", "pass": "0"}
    )
    # QGIS reads options from 3.26 on, and only `prop` before.
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in properties.items():
        ET.SubElement(options, "Option", name=key, type="QString", value=value)
    for key, value in properties.items():
        ET.SubElement(layer, "prop", k=key, v=value)


def raster_attribute_table(legend: Legend, *, root: ET.Element | None = None) -> str:
    """The `.aux.xml` with names and colours of band 1, for GDAL, QGIS from 3.30 on and ArcGIS.

    Args:
        legend: the classes.
        root: the parsed `.aux.xml` that GDAL wrote, which is extended; None without one.

    Returns:
        A thematic attribute table and, where every class id fits in a byte, the category names,
        with blanks for ids that are not classes.
    """
    if root is None:
        root = ET.Element("PAMDataset")
    band = root.find("PAMRasterBand[@band='1']")
    if band is None:
        band = ET.SubElement(root, "PAMRasterBand", band="1")
    _add_category_names(band, legend)
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_TABLE_COLUMNS):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        ET.SubElement(field, "Name").text = name
        ET.SubElement(field, "Type").text = str(kind)
        ET.SubElement(field, "Usage").text = str(usage)
    for index, entry in enumerate(legend.classes):
        row = ET.SubElement(table, "Row", index=str(index))
        for value in (entry.class_id, entry.name, *legend.rgb_by_id[entry.class_id], 255):
            ET.SubElement(row, "F").text = str(value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add_category_names(band: ET.Element, legend: Legend) -> None:
    names = {entry.class_id: entry.name for entry in legend.classes}
    if max(names) > _LARGEST_NAMED_POSITION:
        return
    categories = ET.SubElement(band, "CategoryNames")
    for class_id in range(max(names) + 1):
        ET.SubElement(categories, "Category").text = names.get(class_id, "")


def _fill_properties(entry: LegendClass) -> dict[str, str]:
    red, green, blue = entry.rgb
    return {
        "color": f"{red},{green},{blue},255",
        "style": "solid",
        "joinstyle": "bevel",
        # A darker tone of the class's own colour: adjacent polygons of one class stay distinct, and
        # outlines do not turn the map grey when zoomed out.
        "outline_color": f"{red * 2 // 3},{green * 2 // 3},{blue * 2 // 3},255",
        "outline_style": "solid",
        "outline_width": "0.1",
        "outline_width_unit": "MM",
    }


def _qgis_root() -> ET.Element:
    return ET.Element("qgis", version=_QGIS_VERSION, styleCategories="Symbology")


def _raster_renderer(root: ET.Element, kind: str, **attributes: str) -> ET.Element:
    return ET.SubElement(
        ET.SubElement(root, "pipe"),
        "rasterrenderer",
        type=kind,
        band="1",
        opacity="1",
        alphaBand="-1",
        attrib=attributes,
        nodataColor="",
    )


def qml_text(root: ET.Element) -> str:
    """The text of a `.qml` file."""
    ET.indent(root)
    return _QML_DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"
