"""Transformations between CRSs of any unit, and a one-line reason where none exists."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import rasterio.crs
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geodinoseg.errors import TransformationError, one_line

# pyproj puts PROJ's reason in brackets, after a general statement that no transformation exists.
_PROJ_REASON = "proj_create_operations: "


@dataclass(frozen=True, slots=True)
class Transformation:
    """A transformation from one CRS to another; x comes first, in the units of each CRS."""

    _transformer: pyproj.Transformer
    _to_proj: float
    _from_proj: float

    def transform(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates in the other CRS; infinite where a point cannot be transformed.

        Longitudes are within half a turn of the prime meridian, so that those of neighbours on
        either side of the 180th meridian differ by almost a turn.
        """
        try:
            xs, ys = self._transformer.transform(x * self._to_proj, y * self._to_proj)
        except ProjError:
            return np.full_like(x, np.inf), np.full_like(y, np.inf)
        return np.asarray(xs) * self._from_proj, np.asarray(ys) * self._from_proj


def parsed_crs(crs: Any) -> pyproj.CRS | None:
    """Convert a CRS of rasterio, or in any other form, to one of pyproj; None stays None."""
    return None if crs is None else pyproj.CRS.from_user_input(crs)


def find_transformation(source: Any, target: Any) -> Transformation:
    """The transformation from one CRS to another, each as pyproj or rasterio takes it.

    Raises:
        TransformationError: no transformation exists, for instance because a CRS is local or of
            another celestial body. The message is a clause that names both CRSs, to be put after
            a file name.
    """
    # Choosing among PROJ's operations takes milliseconds, and every window needs one.
    return _found(pyproj.CRS.from_user_input(source), pyproj.CRS.from_user_input(target))


def full_turn(crs: pyproj.CRS | None) -> float | None:
    """360 degrees in the units of a geographic CRS; None for other CRSs."""
    return None if crs is None or not crs.is_geographic else 360.0 / degrees_per_unit(crs)


def degrees_per_unit(crs: pyproj.CRS) -> float:
    """Degrees per unit of a geographic CRS: 1 for degrees, 0.9 for grads, 57.3 for radians."""
    return round(math.degrees(crs.axis_info[0].unit_conversion_factor), 12)


def same_place(one: Any, other: Any) -> bool:
    """Whether the same coordinates in two CRSs are the same place; heights do not matter.

    File formats store a CRS without its code, under another name, or with the name of its datum in
    another version of the EPSG database.

    Args:
        one: a CRS as pyproj or rasterio takes it.
        other: another one.
    """
    first, second = (_horizontal(pyproj.CRS.from_user_input(crs)) for crs in (one, other))
    if first.equals(second, ignore_axis_order=True):
        return True
    # GDAL's comparison knows equal parameters of projections by their values.
    if rasterio.crs.CRS.from_user_input(first) == rasterio.crs.CRS.from_user_input(second):
        return True
    facts, others = _facts(first), _facts(second)
    if facts is None or others is None:
        return False
    # Versions of the EPSG database give the datum of one CRS different names.
    code = first.to_json_dict().get("id")
    same_code = code is not None and code == second.to_json_dict().get("id")
    return facts[1:] == others[1:] if same_code else facts == others


def _facts(crs: pyproj.CRS) -> tuple[Any, ...] | None:
    """Datum, ellipsoid, units, axes that point west, and projection; None if they are not known."""
    base = crs.geodetic_crs
    if base is None or base.datum is None or base.ellipsoid is None or crs.is_bound:
        return None
    datum = "".join(filter(str.isalnum, base.datum.name.lower().removeprefix("d_")))
    meridian = base.prime_meridian.longitude if base.prime_meridian else 0.0
    axes = base.ellipsoid.semi_major_metre, base.ellipsoid.semi_minor_metre
    unit = f"{crs.axis_info[0].unit_conversion_factor:.10g}"
    operation = crs.coordinate_operation
    west = sum(axis.direction == "west" for axis in crs.axis_info)
    if operation is None:
        return datum, meridian, axes, unit, west
    values = [
        (p.name, f"{float(p.value) * p.unit_conversion_factor:.10g}") for p in operation.params
    ]
    return datum, meridian, axes, unit, west, operation.method_name, sorted(values)


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """A CRS without heights, and without a shift of zero to WGS 84."""
    if crs.is_bound and crs.coordinate_operation is not None and crs.source_crs is not None:
        shift = crs.coordinate_operation.towgs84
        if shift and not any(shift):
            crs = crs.source_crs
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs.to_2d()


@lru_cache(maxsize=64)
def _found(source: pyproj.CRS, target: pyproj.CRS) -> Transformation:
    try:
        transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        _, has_reason, reason = one_line(error).partition(_PROJ_REASON)
        why = f" ({_first_sentence(reason)})" if has_reason else ""
        raise TransformationError(
            f"no transformation exists from the CRS {source.name!r} to {target.name!r}{why}"
        ) from error
    return Transformation(transformer, _proj_units(source), 1 / _proj_units(target))


def _first_sentence(reason: str) -> str:
    """First sentence of PROJ's reason, without the closing bracket that pyproj adds."""
    sentence = reason.partition(". ")[0]
    return sentence.removesuffix(")") if sentence.count(")") > sentence.count("(") else sentence


def _proj_units(crs: pyproj.CRS) -> float:
    """Factor from the units of a CRS to those that PROJ takes.

    PROJ takes degrees for a CRS in radians, and other units unchanged.
    """
    in_radians = crs.is_geographic and crs.axis_info[0].unit_conversion_factor == 1.0
    return math.degrees(1.0) if in_radians else 1.0
