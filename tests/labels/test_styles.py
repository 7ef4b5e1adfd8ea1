"""Names and colours of classes: a legend file first, then the layer's own style, then the palette."""

import json
import sqlite3
import time
from contextlib import closing

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings, strategies as st
from rasterio.crs import CRS

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.legend import Legend, LegendClass
from geodinoseg.legend.colors import PALETTE
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.qgis.styles import raster_qml, vector_qml
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.class_style import StyleError, hex_color, read_qml
from geodinoseg.rasters.legend_file import read_legend_file

UTM = CRS.from_epsg(32645)
BOX = GeoBox(
    crs=UTM,
    transform=Affine.translation(350_000, 3_056_000) @ Affine.rotation(20) @ Affine.scale(2, -2),
    width=101,
    height=67,
)
LEGEND = Legend(
    (
        LegendClass(class_id=3, name="Wasser & Straße <1>", color="#0102fe"),
        LegendClass(class_id=7, name='tin "roof"', color="#aabbcc"),
        LegendClass(class_id=12, name="wood", color="#8a2be2"),
    )
)


def polygons(path, **columns):
    count = len(next(iter(columns.values())))
    cells = np.array([shapely.box(9 * n, 9, 9 * n + 8, 17) for n in range(count)], dtype=object)
    ground = shapely.transform(cells, lambda xy: np.column_stack(BOX.transform @ tuple(xy.T)))
    geopandas.GeoDataFrame(columns, geometry=list(ground), crs=UTM).to_file(path)
    return path


def legend_of(path, **options):
    labels = open_labels(path, BOX, options=LabelOptions(**options))
    return {e.class_id: (e.name, e.color) for e in labels.legend}


def as_told(legend=LEGEND):
    return {entry.class_id: (entry.name, entry.color) for entry in legend}


def csv_text(legend, delimiter=","):
    rows = [
        f'{e.class_id}{delimiter}"{e.name.replace(chr(34), chr(34) * 2)}"{delimiter}{e.color}'
        for e in legend
    ]
    return "\n".join([delimiter.join(["id", "name", "color"]), *rows]) + "\n"


def rgb_csv(legend):
    rows = [
        f'{e.class_id}\t"{e.name.replace(chr(34), chr(34) * 2)}"\t{e.rgb[0]}\t{e.rgb[1]}\t{e.rgb[2]}'
        for e in legend
    ]
    return "\n".join(["Value\tClass_Name\tRed\tGreen\tBlue", *rows])


def emd(legend):
    classes = [{"Value": e.class_id, "Name": e.name, "Color": list(e.rgb)} for e in legend]
    return json.dumps({"Framework": "arcgis.learn.models", "Classes": classes})


LEGEND_FILES = {
    "a.csv": csv_text,
    "semicolons.csv": lambda legend: csv_text(legend, ";"),
    "marked.csv": lambda legend: "\ufeff" + csv_text(legend),
    "channels.tsv": rgb_csv,
    "ours.json": lambda legend: json.dumps(legend.to_json()),
    "nested.json": lambda legend: json.dumps({"legend": legend.to_json()}),
    "export.emd": emd,
    "raster.qml": raster_qml,
    "lines.txt": lambda legend: (
        "# ours\n" + "\n".join(f"{e.class_id} {e.name} {e.color}" for e in legend)
    ),
    "qgis.txt": lambda legend: (
        "# QGIS Generated Color Map Export File\nINTERPOLATION:EXACT\n"
        + "\n".join(f"{e.class_id},{e.rgb[0]},{e.rgb[1]},{e.rgb[2]},255,{e.name}" for e in legend)
    ),
    "named.clr": lambda legend: "\n".join(
        f"{e.class_id} {' '.join(map(str, e.rgb))} {e.name}" for e in legend
    ),
    "alpha.clr": lambda legend: "\n".join(
        "\t".join(map(str, (e.class_id, *e.rgb, 255, e.name))) for e in legend
    ),
}


@pytest.mark.parametrize("name", LEGEND_FILES)
def test_every_usual_legend_file_names_and_colours_numbers(tmp_path, name):
    file = tmp_path / name
    file.write_text(LEGEND_FILES[name](LEGEND), "utf-8")
    labels = polygons(tmp_path / "labels.gpkg", label=[12, 3, 7])
    assert legend_of(labels, legend_file=file) == as_told()


@given(given_colors=st.dictionaries(st.integers(0, 30), st.sampled_from(PALETTE)))
def test_the_palette_repeats_no_colour_that_is_given(given_colors):
    legend = Legend.of_names({number: f"c{number}" for number in range(31)}, given_colors)
    given = set(given_colors.values())
    others = [e.color for e in legend if e.class_id not in given_colors]
    assert not given & set(others)
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("name", [*LEGEND_FILES, "vector.qml"])
def test_names_get_the_numbers_and_colours_of_the_legend(tmp_path, name):
    file = tmp_path / name
    file.write_text((LEGEND_FILES | {"vector.qml": vector_qml})[name](LEGEND), "utf-8")
    labels = polygons(tmp_path / "labels.gpkg", label=["wood", LEGEND.names[0], LEGEND.names[1]])
    found = legend_of(labels, legend_file=file)
    told = as_told() if name != "vector.qml" else dict(enumerate(as_told().values(), start=1))
    assert sorted(found.values()) == sorted(told.values())
    if name != "vector.qml":  # a vector style knows no numbers
        assert found == told


def test_a_legend_keeps_out_what_does_not_occur_and_others_get_free_numbers(tmp_path):
    file = tmp_path / "legend.txt"
    file.write_text("1 ash #010203\n2 elm #040506\n9 background #0a0b0c\nTIN #070809\n")
    labels = polygons(tmp_path / "labels.gpkg", label=["tin", "elm", "oak"])
    found = legend_of(labels, legend_file=file, unlabelled="background")
    assert found == {
        2: ("elm", "#040506"),
        3: ("oak", PALETTE[0]),
        4: ("tin", "#070809"),
        9: ("background", "#0a0b0c"),
    }


def test_a_clr_file_colours_numbers_and_leaves_their_names(tmp_path):
    file = tmp_path / "legend.clr"
    file.write_text("3 1 2 254\n7 170 187 204 255\n")
    labels = polygons(tmp_path / "labels.gpkg", class_id=[3, 7], class_name=["water", "tin"])
    assert legend_of(labels, legend_file=file) == {3: ("water", "#0102fe"), 7: ("tin", "#aabbcc")}


def test_the_legend_file_comes_before_names_in_the_file_and_in_ignored_classes(tmp_path):
    file = tmp_path / "legend.csv"
    file.write_text("value,label,hex\n3,water,4477aa\n7,tin,#ABC\n12,wood,\n")
    labels = polygons(tmp_path / "l.gpkg", class_id=[3, 7, 12], class_name=["W", "T", "H"])
    assert legend_of(labels, legend_file=file, ignore_classes=("wood",)) == {
        3: ("water", "#4477aa"),
        7: ("tin", "#aabbcc"),
    }


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.csv", "id,name,color\n1,water,blueish\n", "row 2: 'blueish' is not a colour"),
        ("a.csv", "id,name\n65535,water\n", "row 2: '65535' is not a class id"),
        ("a.csv", "id,name\n-1,water\n", "row 2: '-1' is not a class id"),
        ("a.csv", "id,name\n1.5,water\n", "row 2: '1.5' is not a class id"),
        ("a.csv", "id,name\n1,a\n1,b\n", "two classes have the id '1'"),
        ("a.csv", "id,name\n1,a\n2,a\n", "two classes have the name 'a'"),
        ("a.csv", "id,name\n", "has no colour and no number"),
        ("a.txt", "the roofs are grey\n", "line 1: 'the roofs are grey' has no colour"),
        ("a.txt", "# nothing\n", "holds no class"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.json", '{"classes": 3}', "holds no list of classes"),
        ("a.json", '[{"color": "#000000"}]', "entry 1: has neither a readable name nor a number"),
        ("a.json", '[{"name": "a\\nb"}]', "entry 1: has neither a readable name"),
        ("a.qml", "<qgis", "cannot be read as a QGIS style"),
        ("a.qml", "<qgis/>", "holds no class"),
        ("a.csv", "PNG\0\0", "is not a text file"),
        ("a.csv", "", "the file is empty"),
    ],
)
def test_legend_files_that_cannot_serve_are_refused_in_one_line(tmp_path, name, text, fault):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(LabelError) as caught:
        read_legend_file(str(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60), st.sampled_from([".csv", ".json", ".txt", ".qml", ".clr"]))
@settings(deadline=None, max_examples=60)
def test_any_text_is_a_legend_or_a_clear_error(tmp_path_factory, text, suffix):
    file = tmp_path_factory.mktemp("legend") / f"any{suffix}"
    file.write_text(text, "utf-8", errors="replace")
    try:
        assert read_legend_file(str(file)).classes
    except LabelError as refusal:
        fault = str(refusal)
    else:
        fault = str(file)
    assert str(file) in fault


@pytest.mark.parametrize(
    ("value", "color"),
    [
        ("#0a0B0c", "#0a0b0c"),
        ("0a0b0c", "#0a0b0c"),
        ("#abc", "#aabbcc"),
        ("#0a0b0cff", "#0a0b0c"),
        ("1,2,3", "#010203"),
        ("1, 2, 3, 255,rgb:0.1,0.2", "#010203"),
        ([1, 2, 3], "#010203"),
        ("rgb(1, 2, 3)", "#010203"),
        ("red", None),
        ("1,2", None),
        ("1,2,256", None),
        (7, None),
        ("nan,1,2", None),
        ("", None),
    ],
)
def test_colours_are_read_as_files_give_them(value, color):
    assert hex_color(value) == color


def qml_of(attribute, categories):
    """A style as QGIS 3.40 writes it: colours as 0 to 255 and as shares."""
    symbols = "".join(
        f'<symbol name="{n}" type="fill"><layer class="SimpleFill"><Option type="Map">'
        f'<Option name="border_width_map_unit_scale" value="3x:0,0,0,0,0,0" type="QString"/>'
        f'<Option name="color" value="{color},255,rgb:0.7,0.6,0.5,1" type="QString"/>'
        f"</Option></layer></symbol>"
        for n, (_, _, color) in enumerate(categories)
    )
    entries = "".join(
        f'<category symbol="{n}" value="{value}" label="{label}" type="string"/>'
        for n, (value, label, _) in enumerate(categories)
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="3.40"><renderer-v2 type="categorizedSymbol" attr="{attribute}">'
        f"<categories>{entries}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )


CATEGORIES = [("3", "water", "1,2,254"), ("7", "tin", "170,187,204"), ("", "others", "9,9,9")]


@pytest.mark.parametrize("attribute", ["code", '"CODE"'])
def test_a_qml_beside_the_layer_names_and_colours_its_numbers_unasked(tmp_path, attribute):
    labels = polygons(tmp_path / "labels.shp", code=[3, 7], note=["a", "b"])
    attribute = attribute.replace('"', "&quot;")
    (tmp_path / "labels.qml").write_text(qml_of(attribute, CATEGORIES))
    told = {3: ("water", "#0102fe"), 7: ("tin", "#aabbcc")}
    assert legend_of(labels, class_field="code") == told
    assert (
        legend_of(labels, class_field="code", ignore_classes=("water",), unlabelled="background")[7]
        == told[7]
    )
    # A style by another column says nothing of these classes.
    assert legend_of(labels, class_field="note") == {1: ("a", PALETTE[0]), 2: ("b", PALETTE[1])}
    # And a map's own legend need not know what a style calls its classes.
    legend = Legend.of_names({3: "lake", 7: "class 7"})
    assert (
        open_labels(labels, BOX, legend=legend, options=LabelOptions(class_field="code")).legend
        == legend
    )


def test_labels_that_stand_for_two_numbers_name_neither(tmp_path):
    labels = polygons(tmp_path / "labels.gpkg", label=[3, 7])
    same = [("3", "forest", "1,2,254"), ("7", "forest", "170,187,204")]
    (tmp_path / "labels.qml").write_text(qml_of("label", same))
    assert legend_of(labels) == {3: ("class 3", "#0102fe"), 7: ("class 7", "#aabbcc")}


def test_a_class_file_drawn_in_one_colour_gives_it_to_its_class(tmp_path):
    tin, wood = (polygons(tmp_path / f"{name}.gpkg", note=["x"]) for name in ("tin", "wood"))
    style = qml_of("", [("", "", "12,34,56")]).replace("categorizedSymbol", "singleSymbol")
    (tmp_path / "wood.qml").write_text(style)
    found = legend_of([f"tin={tin}", f"wood={wood}"])
    assert found == {1: ("tin", PALETTE[0]), 2: ("wood", "#0c2238")}


def class_raster(path, legend, **tags):
    values = np.resize(np.array(legend.class_ids, np.uint8), (BOX.height, BOX.width))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=BOX.width,
        height=BOX.height,
        count=1,
        dtype="uint8",
        nodata=255,
        crs=UTM,
        transform=BOX.transform,
    ) as dataset:
        dataset.write(values, 1)
        dataset.update_tags(**tags)
    return path


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson"])
def test_polygons_of_a_map_keep_names_and_colours_as_labels(tmp_path, suffix):
    raster = class_raster(
        tmp_path / "map.tif", LEGEND, GEODINOSEG_LEGEND=json.dumps(LEGEND.to_json())
    )
    path = tmp_path / f"polygons{suffix}"
    write_polygons(open_class_raster(raster), path)
    before = path.read_bytes()
    layer = f"{path}|layername=polygons" if suffix == ".gpkg" else path
    assert legend_of(layer) == as_told()
    assert legend_of(raster) == as_told()
    assert path.read_bytes() == before


def test_a_raster_takes_its_qml_before_its_colour_table_and_a_clr_for_want_of_it(tmp_path):
    path = class_raster(tmp_path / "labels.tif", LEGEND)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {3: (9, 9, 9), 7: (8, 8, 8), 12: (7, 7, 7)})
    assert legend_of(path)[3] == ("class 3", "#090909")
    (tmp_path / "labels.clr").write_text("3 6 6 6\n")
    assert legend_of(path)[3] == ("class 3", "#060606")
    assert legend_of(path)[7] == ("class 7", "#080808")
    (tmp_path / "labels.qml").write_text(raster_qml(LEGEND))
    assert legend_of(path) == as_told()
    file = tmp_path / "legend.txt"
    file.write_text("3 lake #010101\n")
    assert legend_of(path, legend_file=file)[3] == ("lake", "#010101")
    assert legend_of(path, legend_file=file)[7] == as_told()[7]


BOMB = (
    '<!DOCTYPE qgis [<!ENTITY a "' + "a" * 1000 + '"><!ENTITY b "' + "&a;" * 1000 + '">'
    '<!ENTITY c "' + "&b;" * 1000 + '">]><qgis>&c;</qgis>'
)
READS_FILE = (
    '<!DOCTYPE qgis [<!ENTITY x SYSTEM "file:///etc/passwd">]><qgis version="&x;">&x;</qgis>'
)


@pytest.mark.parametrize("text", [BOMB, READS_FILE, BOMB.replace("ENTITY c", "ENTITY % c")])
def test_styles_that_declare_entities_are_refused_at_once(text):
    start = time.monotonic()
    with pytest.raises(StyleError, match="declares the entity"):
        read_qml(text)
    assert time.monotonic() - start < 2


def test_no_doctype_is_fetched(tmp_path):
    dtd = tmp_path / "bad.dtd"
    dtd.write_text('<!ENTITY water "sea">')
    text = qml_of("label", CATEGORIES).replace("http://mrcc.com/qgis.dtd", dtd.as_uri())
    assert read_qml(text.replace("'SYSTEM'", f"'{dtd.as_uri()}'")).names_by_id() == {
        3: "water",
        7: "tin",
    }


@pytest.mark.parametrize("text", [BOMB, "<qgis", "\0", "no XML"])
def test_a_style_that_cannot_be_read_is_left_out_with_a_warning(tmp_path, text, caplog):
    labels = polygons(tmp_path / "labels.gpkg", label=["a", "b"])
    (tmp_path / "labels.qml").write_text(text)
    assert legend_of(labels) == {1: ("a", PALETTE[0]), 2: ("b", PALETTE[1])}
    assert "the layer's style cannot be read, so it is ignored" in caplog.text


def test_a_geopackage_with_a_broken_table_of_styles_is_read_all_the_same(tmp_path):
    labels = polygons(tmp_path / "labels.gpkg", label=["a", "b"])
    with closing(sqlite3.connect(labels)) as database, database:
        database.execute("CREATE TABLE layer_styles (styleQML TEXT)")
    assert legend_of(labels) == {1: ("a", PALETTE[0]), 2: ("b", PALETTE[1])}
