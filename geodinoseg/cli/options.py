"""Options and parameter types that several commands share, named as in rasterio's rio."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from typing_extensions import override

from geodinoseg.cli.events import remember_json

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", re.IGNORECASE)
_SIZE_LIMIT = 1 << 63
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Number(click.ParamType[float]):
    """A number whose range is checked by click, but not appended to its help text."""

    def __init__(self, allowed: click.IntRange | click.FloatRange, name: str = "N") -> None:
        self._allowed = allowed
        self.name = name

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = self._allowed.convert(value, param, ctx)
        return number


COUNT = Number(click.IntRange(min=1))
SEED = Number(click.IntRange(min=0))


class Bands(click.ParamType[tuple[int, ...]]):
    """Band numbers such as 4,3,2."""

    name = "1,2,..."

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            bands = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of band numbers such as 4,3,2", param, ctx)
        if min(bands) < 1:
            self.fail("bands are numbered from 1", param, ctx)
        return bands


class MemorySize(click.ParamType[int]):
    """A number of bytes such as 2GB (2,000,000,000) or 512MiB (536,870,912)."""

    name = "SIZE"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a size such as 2GB or 512MiB", param, ctx)
        number, prefix, binary = found.groups()
        base = 1024 if binary else 1000
        power = " KMGT".index(prefix.upper()) if prefix else 0
        size = float(number) * int(base**power)
        if not 1 <= size < _SIZE_LIMIT:
            self.fail(f"{value!r} is not a possible size of memory", param, ctx)
        return round(size)


class Length(click.ParamType[float]):
    """A length in metres, finite and above 0."""

    name = "metres"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            length = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of metres such as 0.25", param, ctx)
        if not 0 < length < float("inf"):
            self.fail(f"{value!r} is not a length above 0", param, ctx)
        return length


class Distance(click.ParamType[tuple[str, float]]):
    """A distance in pixels such as 1.5, or in metres such as 2m, as (unit, number)."""

    name = "px|m"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        text = str(value).strip()
        unit = next((unit for unit in ("px", "m") if text.endswith(unit)), "")
        try:
            number = float(text.removesuffix(unit))
        except ValueError:
            self.fail(f"{value!r} is not a distance such as 1.5 (pixels) or 2m", param, ctx)
        if not 0 <= number < float("inf"):
            self.fail(f"{value!r} is not a distance of 0 or more", param, ctx)
        return unit or "px", number


class DeviceName(click.ParamType[str]):
    """auto, cpu, cuda or cuda:N; not looked up here, since PyTorch takes seconds to load."""

    name = "device"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _DEVICE.fullmatch(str(value)) is None:
            self.fail(f"device {value!r}: give auto, cpu, cuda or cuda:N.", param, ctx)
        return str(value)


def bands_option(default: str) -> Callable[[_Command], _Command]:
    """The option --bands; its help names what is read by default."""
    return click.option(
        "-b",
        "--bands",
        type=Bands(),
        help=f"Bands to read, numbered from 1, such as 4,3,2. [default: {default}]",
    )


nodata_option = click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    help="Nodata value of the scene. [default: that of the file]",
)
class_raster_argument = click.argument("class_raster", type=click.Path(path_type=str))
"""A file, or any path that GDAL reads; a `pathlib.Path` cannot hold an address."""

class_field_option = click.option(
    "--class-field",
    metavar="COLUMN",
    help="Column with the class. [default: class, class_id, class_name or label]",
)
unlabelled_option = click.option(
    "--unlabelled",
    type=click.Choice(["ignore", "background"]),
    default="ignore",
    show_default=True,
    help="Meaning of pixels outside all polygons: unknown (ignore) or the class background.",
)
extent_option = click.option(
    "--extent",
    metavar="FILE",
    help="Polygons within which labelling is complete, such as checked.gpkg: inside, pixels "
    "without a label are background; outside, they are unknown.",
)
legend_option = click.option(
    "--legend",
    "legend_file",
    metavar="FILE",
    help="Names and colours of the classes: CSV with id, name, color, such as legend.csv; JSON; "
    "QGIS .qml; or lines such as 'water #4477aa'. [default: the QGIS style of the labels]",
)
map_legend_option = click.option(
    "--legend",
    "legend_file",
    metavar="FILE",
    help="Names and colours of the ids of CLASS_RASTER: CSV with id, name, color; JSON, QGIS .qml, "
    "or lines such as '3 water #4477aa'. [default: those in the raster and beside it]",
)

_AREA = Number(click.FloatRange(min=0), "m2")
min_area_option = click.option(
    "--min-area",
    type=_AREA,
    default=0.0,
    help="Merge polygons below this area (square metres) into the neighbour with the longest "
    "shared border.",
)
fill_holes_option = click.option(
    "--fill-holes",
    type=_AREA,
    default=0.0,
    help="Fill nodata holes of polygons below this area (square metres).",
)
simplify_option = click.option(
    "--simplify",
    type=Distance(),
    default="0",
    help="Simplify outlines of polygons with a tolerance in pixels (1.5) or metres (2m); shared "
    "borders stay shared.",
)

all_touched_option = click.option(
    "--all-touched",
    is_flag=True,
    help="Label every pixel that a polygon touches, not only those whose centre it covers.",
)

ignore_class_option = click.option(
    "--ignore-class",
    metavar="NAME",
    multiple=True,
    help="Class of the labels to leave out; may be repeated.",
)
device_option = click.option(
    "--device",
    type=DeviceName(),
    default="auto",
    show_default=True,
    help="Device of the network: auto, cpu, cuda or cuda:N.",
)
allow_external_option = click.option(
    "--allow-external",
    is_flag=True,
    help="Allow input files to access network addresses and read other files; only for files that "
    "you trust.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
json_option = click.option(
    "--json",
    "json_",
    is_flag=True,
    callback=remember_json,
    help="Print progress and results as JSON, one event per line.",
)
