"""How much of the grid of tiles a map shows, as counted while it was made; kept in its tags."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

SEAMS_TAG = "GEODINOSEG_SEAMS"
"""Tag of every raster of a map that holds its `Seams` as JSON."""
_RATES = ("changes", "straight")
_LARGEST_COUNT = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRates:
    """Changes of the class across tile joins, and across all other lines between pixels."""

    at_joins: int
    """Places at tile joins."""
    changed_at_joins: int
    """Those of them with another class on the other side."""
    elsewhere: int
    """Places on other lines."""
    changed_elsewhere: int
    """Those of them with another class on the other side."""
    p_value: float | None
    """Probability of so many changes at joins if these were lines like any other; None without
    joins."""

    @property
    def rate_at_joins(self) -> float | None:
        """Fraction of the places at joins where the class changes, 0 to 1."""
        return _ratio(self.changed_at_joins, self.at_joins)

    @property
    def rate_elsewhere(self) -> float | None:
        """Fraction of the other places where the class changes, 0 to 1."""
        return _ratio(self.changed_elsewhere, self.elsewhere)

    def __str__(self) -> str:
        """Both rates, and whether they differ by chance."""
        here, elsewhere = self.rate_at_joins or 0.0, self.rate_elsewhere or 0.0
        return f"{here:.2%} of tile joins, {elsewhere:.2%} of other places (p = {self.p_value:.2g})"

    def to_json(self) -> dict[str, Any]:
        """Counts and rates as plain values."""
        rates = {"rate_at_joins": self.rate_at_joins, "rate_elsewhere": self.rate_elsewhere}
        return dataclasses.asdict(self) | rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What shows the tiles of a map: disagreement of tiles, and changes of the class at joins.

    Pixels without data do not count.
    """

    overlap_px: int
    """Pixels that more than one tile covers."""
    disagreeing_px: int
    """Those of them for which the tiles do not all have the same most probable class."""
    changes: JoinRates
    """Of pairs of neighbouring pixels."""
    straight: JoinRates
    """Of 8 pairs side by side, which count as changed if all are: pieces of straight borders."""

    @property
    def disagreement(self) -> float | None:
        """Fraction of the overlap on which tiles disagree, 0 to 1."""
        return _ratio(self.disagreeing_px, self.overlap_px)

    def to_json(self) -> dict[str, Any]:
        """Counts, fractions and rates as plain values."""
        return {
            "overlap_px": self.overlap_px,
            "disagreeing_px": self.disagreeing_px,
            "disagreement": self.disagreement,
            "changes": self.changes.to_json(),
            "straight": self.straight.to_json(),
        }

    def to_tags(self) -> dict[str, str]:
        """The counts as a tag of a raster."""
        return {SEAMS_TAG: json.dumps(dataclasses.asdict(self))}

    def __str__(self) -> str:
        """What to say of the tiles: that they disagree on so much, and what shows."""
        if self.disagreement is None:
            return "do not overlap"
        text = f"disagree on {self.disagreement:.1%} of their overlap"
        if self.changes.p_value is not None:
            text += f"; classes change at {self.changes}"
        if self.straight.p_value is not None:
            text += f", along straight lines at {self.straight}"
        return text

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> Seams:
        """Those of such values."""
        rates = {name: _of_json(JoinRates, facts[name]) for name in _RATES}
        return _of_json(cls, {**facts, **rates})

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Seams | None:
        """Those in the tags of a raster; None without a tag that can be read."""
        try:
            return cls.of_json(json.loads(tags[SEAMS_TAG]))
        except (KeyError, ValueError, TypeError, RecursionError):
            return None


_Counts = TypeVar("_Counts", Seams, JoinRates)


def _of_json(kind: type[_Counts], facts: Mapping[str, Any]) -> _Counts:
    """Raises KeyError, TypeError or ValueError for values that are impossible: files are data."""
    values = {field.name: facts[field.name] for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name == "p_value":
            possible = value is None or 0 <= value <= 1
        elif name in _RATES:
            possible = isinstance(value, JoinRates)
        else:
            possible = isinstance(value, int) and 0 <= value <= _LARGEST_COUNT
        if not possible:
            raise ValueError(f"{name} cannot be {value}")
    return kind(**values)


def _ratio(count: int, of: int) -> float | None:
    return count / of if of else None
