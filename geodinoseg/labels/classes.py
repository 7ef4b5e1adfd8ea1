"""Which class each labelled feature has: the class column, its names or numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.legend import BACKGROUND, LARGEST_CLASS_ID, default_name

IGNORE = -1
"""Where there is no label: neither trained on nor counted."""

USUAL_FIELDS = ("class", "class_id", "class_name", "label")
"""Names of the class column where none is given; the first that exists is used."""
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureClasses:
    """The class of each feature of a layer."""

    class_ids: NDArray[np.int64]
    """(features,), IGNORE where the class is unknown or to be ignored."""
    names: Mapping[int, str]
    """Name of each class id that occurs."""
    is_numbered: bool
    """Whether the ids are those of the file; else they were given here, to names."""
    ignored: frozenset[str]
    """Which of the classes to be ignored occur, as they were asked for."""
    is_unknown: NDArray[np.bool_]
    """(features,) True where the file gives no class; such features are areas to ignore."""

    def occurring(self) -> list[str]:
        """Names of the classes that features have."""
        found = np.unique(self.class_ids[self.class_ids != IGNORE]).tolist()
        return [self.names[class_id] for class_id in found]


def class_columns(
    path: str, columns: Sequence[str], class_field: str | None
) -> tuple[str, str | None]:
    """The column that holds the class, and the one that holds its name where ids have their own.

    Without a class field it is one of `USUAL_FIELDS`. Case does not matter.
    """
    by_name = {column.casefold(): column for column in reversed(columns)}
    existing = f"its columns are {', '.join(columns)}" if columns else "it has no columns at all"
    if class_field is not None:
        exact = class_field if class_field in columns else by_name.get(class_field.casefold())
        if exact is None:
            raise LabelError(f"{path}: has no column {class_field!r}; give another ({existing}).")
        return exact, None
    found = next((by_name[name] for name in USUAL_FIELDS if name in by_name), None)
    if found is None:
        raise LabelError(
            f"{path}: has no column {', '.join(USUAL_FIELDS[:-1])} or {USUAL_FIELDS[-1]}; give "
            f"the one that holds the class with --class-field ({existing})."
        )
    return found, by_name.get("class_name") if found.casefold() == "class_id" else None


def feature_classes(
    path: str,
    field: str,
    values: Sequence[Any],
    *,
    names: Sequence[Any] | None = None,
    ignore_classes: Sequence[str] = (),
    legend_names: Mapping[int, str] | None = None,
    style_names: Mapping[int, str] | None = None,
) -> FeatureClasses:
    """Class ids and names from the values of a class column.

    Whole numbers (also as text, `"3"`, or as floating point, `3.0`) are class ids as they stand.
    Other text names the classes, which get ids from 1 in the order of their names; a class
    called background gets 0. None and blank text mean unknown.

    Args:
        path: for messages.
        field: name of the column, for messages.
        values: one per feature; None where it has none.
        names: class names where `values` are ids; None without such a column.
        ignore_classes: names (or ids) of classes to treat as unknown.
        legend_names: names of numbers that take precedence over those of the file.
        style_names: names of numbers that have none in the file.
    """
    known = [value if _is_given(value) else None for value in values]
    is_unknown = np.array([value is None for value in known], dtype=np.bool_)
    numbers = _numbers(path, field, known)
    if numbers is None:
        texts = [None if value is None else str(value).strip() for value in known]
        return _classes_of_names(texts, ignore_classes, is_unknown)
    by_number = _names_by_number(path, numbers, names, legend_names or {}, style_names or {})
    asked = set(ignore_classes)
    ignored = {number: {str(number), name} & asked for number, name in by_number.items()}
    kept = [None if number is None or ignored[number] else number for number in numbers]
    _check_range(path, field, kept)
    return FeatureClasses(
        class_ids=np.array([IGNORE if number is None else number for number in kept], np.int64),
        names={number: by_number[number] for number in set(kept) if number is not None},
        is_numbered=True,
        ignored=frozenset(name for found in ignored.values() for name in found),
        is_unknown=is_unknown,
    )


def ids_of_names(names: Collection[str]) -> dict[str, int]:
    """Ids from 1 in the order of the names; background gets 0."""
    others = sorted(set(names) - {BACKGROUND})
    numbered = {name: class_id for class_id, name in enumerate(others, start=1)}
    return {BACKGROUND: 0, **numbered} if BACKGROUND in names else numbered


def _is_given(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and bool(value == value)  # noqa: PLR0124 (NaN is not itself)


def _numbers(path: str, field: str, values: Sequence[Any]) -> list[int | None] | None:
    """Class ids; None where the values are names."""
    given = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in given):
        if not all(_WHOLE_NUMBER.fullmatch(str(value).strip()) for value in given):
            return None
    elif not all(isinstance(value, (int, float, np.integer, np.floating)) for value in given):
        kind = next(type(value).__name__ for value in given if not isinstance(value, (int, float)))
        raise LabelError(
            f"{path}: column {field!r} holds neither names nor numbers but values of type {kind}; "
            f"choose another with --class-field."
        )
    fractions = [value for value in given if not float(value).is_integer()]
    if fractions:
        raise LabelError(
            f"{path}: column {field!r} holds {fractions[0]}, which is not a class: give names or "
            f"whole numbers, or choose another column with --class-field."
        )
    return [None if value is None else round(float(value)) for value in values]


def _names_by_number(
    path: str,
    numbers: Sequence[int | None],
    names: Sequence[Any] | None,
    legend_names: Mapping[int, str],
    style_names: Mapping[int, str],
) -> dict[int, str]:
    """Names of the numbers that occur: the legend's, else the file's, else the style's."""
    occurring = {number for number in numbers if number is not None}
    own = _own_names(path, numbers, names)
    by_number = {
        **{number: default_name(number) for number in numbers if number is not None},
        **{number: style_names[number] for number in occurring & style_names.keys()},
        **{number: name for number, name in own.items() if name != default_name(number)},
        **{number: legend_names[number] for number in occurring & legend_names.keys()},
    }
    by_name: dict[str, int] = {}
    for number, name in by_number.items():
        if by_name.setdefault(name, number) != number:
            raise LabelError(
                f"{path}: {name!r} is the name of classes {by_name[name]} and {number}; give each "
                f"its own, or choose one of the columns with --class-field."
            )
    return by_number


def _own_names(
    path: str, numbers: Sequence[int | None], names: Sequence[Any] | None
) -> dict[int, str]:
    """The names that the file gives to numbers."""
    found: dict[int, str] = {}
    for number, name in zip(numbers, names or [None] * len(numbers), strict=True):
        if number is None or not _is_given(name):
            continue
        text = str(name).strip()
        if found.setdefault(number, text) != text:
            raise LabelError(
                f"{path}: class {number} is called {found[number]!r} and {text!r}; give it one "
                f"name, or choose one of the columns with --class-field."
            )
    return found


def _classes_of_names(
    texts: Sequence[str | None], ignore_classes: Sequence[str], is_unknown: NDArray[np.bool_]
) -> FeatureClasses:
    occurring = {text for text in texts if text is not None}
    ignored = occurring.intersection(ignore_classes)
    numbered = ids_of_names(occurring - ignored)
    ids = [IGNORE if text is None else numbered.get(text, IGNORE) for text in texts]
    return FeatureClasses(
        class_ids=np.array(ids, np.int64),
        names={class_id: name for name, class_id in numbered.items()},
        is_numbered=False,
        ignored=frozenset(ignored),
        is_unknown=is_unknown,
    )


def _check_range(path: str, field: str, numbers: Sequence[int | None]) -> None:
    for number in numbers:
        if number is not None and not 0 <= number <= LARGEST_CLASS_ID:
            raise LabelError(
                f"{path}: column {field!r} holds the class id {number}, but ids range from 0 to "
                f"{LARGEST_CLASS_ID}; renumber it, or leave it out with --ignore-class {number}."
            )
