"""Options that several commands share, in rio's dialect."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import click

from geodinoseg.cli.console import remember_json

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", re.IGNORECASE)
_ENDLESS_BYTES = 1 << 63
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace outputs that are there already."
)

json_option = click.option(
    "--json",
    "json_",
    is_flag=True,
    callback=remember_json,
    help="Print progress and result as one JSON event a line.",
)


class_field_option = click.option(
    "--class-field", help="Column with the class. [default: class, class_id, class_name or label]"
)

unlabelled_option = click.option(
    "--unlabelled",
    type=click.Choice(["ignore", "background"]),
    default="ignore",
    show_default=True,
    help="What pixels under no polygon are.",
)

extent_option = click.option(
    "--extent",
    metavar="FILE",
    help="Polygons within which labelling is complete, such as checked.gpkg: there all that has no "
    "label is background, outside it is unknown.",
)

legend_option = click.option(
    "--legend",
    "legend_file",
    metavar="FILE",
    help="Names and colours of the classes: CSV with id, name, color, such as legend.csv; JSON, "
    "QGIS .qml, or lines such as 'water #4477aa'. [default: the layer's own QGIS style]",
)

ignore_class_option = click.option(
    "--ignore-class", multiple=True, help="A class of the labels to leave out; may be repeated."
)


allow_external_option = click.option(
    "--allow-external",
    is_flag=True,
    help="Let files that you trust fetch addresses or read other files.",
)

class_raster_argument = click.argument("class_raster", type=click.Path(path_type=str))
"""A file, or any path that GDAL reads; an address is no `pathlib.Path`."""


class Bands(click.ParamType[tuple[int, ...]]):
    """Band numbers such as 4,3,2."""

    name = "1,2,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers; refuses what is none."""
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

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes; refuses what is no size."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a size such as 2GB or 512MiB", param, ctx)
        number, prefix, binary = found.groups()
        base = 1024 if binary else 1000
        power = " KMGT".index(prefix.upper()) if prefix else 0
        size = float(number) * int(base**power)
        if not 1 <= size < _ENDLESS_BYTES:
            self.fail(f"{value!r} is no size that memory can have", param, ctx)
        return round(size)


class Length(click.FloatRange):
    """A length above 0; neither infinite nor NaN, which click's own range lets pass."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True, max=sys.float_info.max)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The length; refuses what is none."""
        length: float = super().convert(value, param, ctx)
        if math.isnan(length):
            self.fail(f"{value!r} is no length", param, ctx)
        return length


class DeviceName(click.ParamType[str]):
    """auto, cpu, cuda or cuda:N; whether it is there is asked of PyTorch, which loads slowly."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; refuses what is none."""
        if _DEVICE.fullmatch(str(value)) is None:
            self.fail(f"device {value!r}: give auto, cpu, cuda or cuda:N.", param, ctx)
        return str(value)


device_option = click.option(
    "--device",
    type=DeviceName(),
    default="auto",
    show_default=True,
    help="auto, cpu, cuda or cuda:N.",
)


bands_option = click.option(
    "-b", "--bands", type=Bands(), help="Bands to read, from 1, such as 4,3,2. [default: all]"
)


nodata_option = click.option("--nodata", type=float, help="Nodata value. [default: the scene's]")


class Distance(click.ParamType[tuple[str, float]]):
    """A number of pixels such as 1.5, or of metres such as 2m."""

    name = "px|m"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The unit, px or m, and the number."""
        if isinstance(value, tuple):
            return value
        text = str(value).strip()
        unit = next((unit for unit in ("px", "m") if text.endswith(unit)), "")
        try:
            number = float(text.removesuffix(unit))
        except ValueError:
            self.fail(f"{value!r} is no distance such as 1.5 (pixels) or 2m", param, ctx)
        if not 0 <= number < float("inf"):
            self.fail(f"{value!r} is no distance of 0 or more", param, ctx)
        return unit or "px", number
