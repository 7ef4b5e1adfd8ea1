"""The legend of a class raster: ids, names and colours of the classes, in the model's order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LegendError
from geodinoseg.legend.colors import default_colors

LARGEST_CLASS_ID = 65_534
"""The nodata value of a uint16 class raster is 65,535."""

BACKGROUND = "background"
"""Name of the class of everything that has no other."""
BACKGROUND_COLOR = "#d9d9d9"

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendClass:
    """One class: its id in the raster, its name and its colour."""

    class_id: int
    """0 to 65,534."""
    name: str
    """Any characters except line breaks and control characters."""
    color: str
    """#rrggbb."""

    def __post_init__(self) -> None:
        """Raise LegendError if the id is out of range, the name empty, or the colour invalid."""
        if not 0 <= self.class_id <= LARGEST_CLASS_ID:
            raise LegendError(
                f"class id {self.class_id} is out of range: give 0 to {LARGEST_CLASS_ID}."
            )
        if not self.name.strip() or not self.name.isprintable():
            raise LegendError(f"class {self.class_id} has no printable name: {self.name!r}.")
        if not _COLOR.fullmatch(self.color):
            raise LegendError(
                f"class {self.class_id} ({self.name}) has the invalid colour {self.color!r}: give "
                f"#rrggbb, such as #4477aa."
            )

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        return (int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16))


@dataclass(frozen=True)
class Legend:
    """The classes of a model or a raster; output channel i of a model is classes[i]."""

    classes: tuple[LegendClass, ...]

    def __post_init__(self) -> None:
        """Raise LegendError if there is no class, or if two have the same id or name."""
        if not self.classes:
            raise LegendError("a legend needs at least one class.")
        for what, values in (("id", self.class_ids.tolist()), ("name", self.names)):
            twice = sorted(value for value, count in Counter(values).items() if count > 1)
            if twice:
                raise LegendError(f"two classes of the legend have the {what} {twice[0]!r}.")

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def __iter__(self) -> Iterator[LegendClass]:
        """The classes in the model's order."""
        return iter(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the model's order."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def class_ids(self) -> NDArray[np.int64]:
        """Class ids in the model's order, (classes,)."""
        ids = np.array([entry.class_id for entry in self.classes], dtype=np.int64)
        ids.flags.writeable = False
        return ids

    @cached_property
    def rgb_by_id(self) -> dict[int, tuple[int, int, int]]:
        """Red, green and blue, 0 to 255, of each class id."""
        return {entry.class_id: entry.rgb for entry in self.classes}

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """uint8 if every id is below 255, else uint16."""
        return np.dtype(np.uint8 if self.class_ids.max() < 255 else np.uint16)

    @cached_property
    def nodata(self) -> int:
        """Nodata value of a class raster with this legend: 255, or 65,535 for uint16."""
        return int(np.iinfo(self.dtype).max)

    def by_id(self) -> dict[int, LegendClass]:
        """The classes by their id."""
        return {entry.class_id: entry for entry in self.classes}

    def recolored(self, colors: Mapping[int, str]) -> Legend:
        """The same classes with other colours, by class id; ids without one keep theirs."""
        return Legend(
            tuple(replace(entry, color=colors.get(entry.class_id, entry.color)) for entry in self)
        )

    def to_json(self) -> list[dict[str, Any]]:
        """The legend as JSON values, for `config.json` and the tags of a class raster."""
        return [
            {"class_id": entry.class_id, "name": entry.name, "color": entry.color}
            for entry in self.classes
        ]

    @classmethod
    def from_json(cls, entries: Sequence[Mapping[str, Any]]) -> Legend:
        """The legend of the values from `to_json`.

        Raises:
            LegendError: an entry lacks its id, name or colour, or they contradict each other.
        """
        try:
            return cls(
                tuple(
                    LegendClass(
                        class_id=int(entry["class_id"]),
                        name=str(entry["name"]),
                        color=str(entry["color"]),
                    )
                    for entry in entries
                )
            )
        except (KeyError, TypeError) as error:
            raise LegendError(
                "a legend is a list of classes, each with class_id, name and color."
            ) from error

    @classmethod
    def of_names(cls, names: Mapping[int, str], colors: Mapping[int, str] | None = None) -> Legend:
        """A legend from names and colours by class id; missing colours follow from the names.

        A class 0 named background is grey, other classes get `default_colors`, none of which equals
        a given one.
        """
        chosen = dict(colors or {})
        taken = {color.lower() for color in chosen.values()}
        if names.get(0) == BACKGROUND and BACKGROUND_COLOR not in taken:
            chosen.setdefault(0, BACKGROUND_COLOR)
        missing = {number: names[number] for number in sorted(names) if not chosen.get(number)}
        defaults = default_colors(list(missing.values()), taken=filter(None, chosen.values()))
        chosen |= dict(zip(missing, defaults, strict=True))
        return cls(
            tuple(
                LegendClass(class_id=number, name=names[number], color=chosen[number])
                for number in sorted(names)
            )
        )


def default_name(class_id: int) -> str:
    """Default name of a class that has a number but no name."""
    return f"class {class_id}"


def folded_name(name: str) -> str:
    """A name in lower case with single spaces, to compare names that people have typed."""
    return " ".join(name.split()).casefold()
