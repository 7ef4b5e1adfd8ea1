"""How much of the grid of tiles a map shows, as counted while it was made; kept in its tags."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEAMS_TAG = "GEODINOSEG_SEAMS"
"""Tag of every raster of a map that holds its `Seams` as JSON."""


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

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Seams | None:
        """Those in the tags of a raster; None without a tag that can be read."""
        try:
            facts = json.loads(tags[SEAMS_TAG])
            rates = {name: JoinRates(**facts[name]) for name in ("changes", "straight")}
            return cls(**(facts | rates))
        except (KeyError, ValueError, TypeError, RecursionError):
            return None


def _ratio(count: int, of: int) -> float | None:
    return count / of if of else None
