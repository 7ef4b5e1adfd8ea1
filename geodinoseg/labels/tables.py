"""Polygons in memory: a GeoDataFrame in place of a vector file. Imports no geopandas to see one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geodinoseg.errors import LabelError
from geodinoseg.files.arguments import is_named

_DIGITS = 12
_FRAME, _SERIES = "(GeoDataFrame)", "(GeoSeries)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelTable:
    """A GeoDataFrame, read as a file with the same rows would be. Made by `table_of`."""

    name: str
    """As messages call it."""
    frame: Any
    """The GeoDataFrame; it is never changed."""

    def __str__(self) -> str:
        """The name."""
        return self.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns but the geometry; an index with a name is one, as in a file."""
        return tuple(name for name, _ in self._columns())

    @property
    def recorded_name(self) -> str:
        """A name that changes with the geometries and the CRS, for the model folder."""
        import shapely  # noqa: PLC0415 (an object of geopandas is there, so this is loaded)

        digest = hashlib.sha256(b"" if self.frame.crs is None else self.frame.crs.to_wkt().encode())
        for wkb in shapely.to_wkb(self._geometry().to_numpy()):
            digest.update(b"-" if wkb is None else wkb)
        return f"GeoDataFrame {digest.hexdigest()[:_DIGITS]}"

    def read(self, columns: Sequence[str]) -> Any:
        """A GeoDataFrame of these columns, text, and the geometries."""
        import geopandas  # noqa: PLC0415 (slow; loaded by whoever made the frame)

        values = dict(reversed(self._columns()))  # of two columns of one name, the first
        geometry = self._geometry()
        return geopandas.GeoDataFrame(
            {name: values[name].array for name in columns},
            geometry=geometry.array,
            crs=geometry.crs,
        )

    def _columns(self) -> list[tuple[str, Any]]:
        """Names and values of the columns, those of the index first."""
        frame, geometry = self.frame, self._geometry()
        index = frame.index
        levels = [
            (str(name), index.get_level_values(level).to_series())
            for level, name in enumerate(index.names)
            if name is not None
        ]
        columns = [
            (str(name), frame.iloc[:, position])
            for position, name in enumerate(frame.columns)
            if name != geometry.name
        ]
        return levels + columns

    def _geometry(self) -> Any:
        try:
            return self.frame.geometry
        except AttributeError as error:
            raise LabelError(
                f"{self.name}: has no column of geometries that is set as the geometry; name it "
                f'with .set_geometry("COLUMN").'
            ) from error


def table_of(given: Any, what: str, *, needs_columns: bool = True) -> LabelTable | None:
    """A GeoDataFrame as a table; None of anything else.

    Args:
        given: what a caller gave.
        what: what it stands for, such as `labels`.
        needs_columns: whether a GeoSeries, which has geometries alone, is refused.
    """
    if isinstance(given, LabelTable):
        return given
    if is_named(given, "geopandas", {"GeoDataFrame"}):
        return LabelTable(name=f"{what} {_FRAME}", frame=given)
    if not is_named(given, "geopandas", {"GeoSeries"}):
        return None
    if needs_columns:
        raise LabelError(
            f"{what}: a GeoSeries has geometries alone; give a GeoDataFrame with a column that "
            f"names what each of them is."
        )
    return LabelTable(name=f"{what} {_SERIES}", frame=given.to_frame("geometry"))


def is_table_name(name: str) -> bool:
    """Whether labels are called so in messages because they are in memory."""
    return name.endswith((_FRAME, _SERIES))
