"""Which class each labelled feature has: the class column, its names or numbers, the legend."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geodinoseg.errors import LabelError, LegendError, one_line
from geodinoseg.legend import LARGEST_CLASS_ID, Legend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

IGNORE = -1
"""Where there is no label: neither learnt from nor counted."""

Unlabelled = Literal["ignore", "background"]
"""What pixels without a label are: unknown, or a class of their own."""

USUAL_FIELDS = ("class", "class_id", "class_name", "label")
"""Columns that are taken for the class column unasked, the first that is there."""

_BACKGROUND = "background"
_FEWEST_CLASSES = 2
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureClasses:
    """The class of each feature of a layer."""

    class_ids: NDArray[np.int64]
    """(features,), IGNORE where the class is unknown or to be ignored."""
    names: Mapping[int, str]
    """Name of each class id that occurs."""
    is_numbered: bool
    """Whether the ids are those of the file; else they were given here, to names."""


def class_columns(
    path: str, columns: Sequence[str], class_field: str | None
) -> tuple[str, str | None]:
    """The column that holds the class, and the one that holds its name where ids have their own.

    Args:
        path: for messages.
        columns: all columns of the layer.
        class_field: the column that was asked for; None finds one of `USUAL_FIELDS`.

    Returns:
        class column, name column or None. Capitals do not matter.

    Raises:
        LabelError: there is no such column; the message lists those there are.
    """
    by_name = {column.casefold(): column for column in reversed(columns)}
    there = f"its columns are {', '.join(columns)}" if columns else "it has no columns at all"
    if class_field is not None:
        exact = class_field if class_field in columns else by_name.get(class_field.casefold())
        if exact is None:
            raise LabelError(f"{path}: has no column {class_field!r}; {there}.")
        return exact, None
    found = next((by_name[name] for name in USUAL_FIELDS if name in by_name), None)
    if found is None:
        raise LabelError(
            f"{path}: has no column {', '.join(USUAL_FIELDS[:-1])} or {USUAL_FIELDS[-1]}; say "
            f"with --class-field which one holds the class ({there})."
        )
    return found, by_name.get("class_name") if found.casefold() == "class_id" else None


def feature_classes(
    path: str,
    field: str,
    values: Sequence[Any],
    *,
    names: Sequence[Any] | None = None,
    ignore_classes: Sequence[str] = (),
) -> FeatureClasses:
    """Class ids and names from the values of a class column.

    Whole numbers (also as text, `"3"`, or as floating point, `3.0`) are class ids as they stand.
    Other text names the classes, which get ids from 1 in the order of their names; a class
    called background gets 0. None and blank text mean unknown.

    Args:
        path: for messages.
        field: name of the column, for messages.
        values: one a feature; None where it has none.
        names: class names where `values` are ids; None without such a column.
        ignore_classes: names (or ids) of classes to be taken for unknown.

    Raises:
        LabelError: neither names nor whole numbers, an id below 0 or past 65,534, one id with
            two names or one name with two ids, or a class to be ignored that is not there.
    """
    known = [value if _is_given(value) else None for value in values]
    numbers = _numbers(path, field, known)
    if numbers is None:
        texts = [None if value is None else str(value).strip() for value in known]
        texts = _without(path, texts, ignore_classes)
        numbered = _numbered(sorted({text for text in texts if text is not None}))
        ids = [IGNORE if text is None else numbered[text] for text in texts]
        by_id = {class_id: name for name, class_id in numbered.items()}
        return FeatureClasses(class_ids=np.array(ids, np.int64), names=by_id, is_numbered=False)
    by_number = _names_of_numbers(path, numbers, names)
    texts = [None if number is None else by_number[number] for number in numbers]
    aliases = {str(number): name for number, name in by_number.items()}
    ignored = [name if name in by_number.values() else aliases.get(name, name)
               for name in ignore_classes]  # fmt: skip
    texts = _without(path, texts, ignored)
    kept = [None if text is None else number for text, number in zip(texts, numbers, strict=True)]
    _check_range(path, field, kept)
    return FeatureClasses(
        class_ids=np.array([IGNORE if number is None else number for number in kept], np.int64),
        names={number: by_number[number] for number in set(kept) if number is not None},
        is_numbered=True,
    )


def legend_of(
    path: str,
    classes: FeatureClasses,
    *,
    unlabelled: Unlabelled,
    colors: Mapping[int, str] | None = None,
) -> Legend:
    """The legend of the classes that occur, with a background where pixels without label are one.

    Args:
        path: for messages.
        classes: of the features in the scene.
        unlabelled: what pixels without a label are.
        colors: #rrggbb of class ids, where they have some already.

    Raises:
        LabelError: fewer than two classes, a name that cannot be shown, or class 0 is taken by
            something other than background.
    """
    occurring = np.unique(classes.class_ids[classes.class_ids != IGNORE]).tolist()
    names = {class_id: classes.names[class_id] for class_id in occurring}
    if unlabelled == "background":
        names = _with_background(path, names)
    if len(names) < _FEWEST_CLASSES:
        only = f"one class only, {next(iter(names.values()))!r}" if names else "no class"
        raise LabelError(
            f"{path}: has {only} in this scene, and a map needs two; label another class, or say "
            f"--unlabelled background where everything without a label is one."
        )
    try:
        return Legend.of_names(names, colors)
    except LegendError as error:
        raise LabelError(f"{path}: {one_line(error)}; rename that class.") from error


def fitted_to(path: str, classes: FeatureClasses, legend: Legend) -> NDArray[np.int64]:
    """Class ids of the features in a legend that is given.

    Classes fit by their name, and by their id too where the file gives one. A class that has a
    number and no name fits by its number.

    Returns:
        (features,), IGNORE where the class is unknown.

    Raises:
        LabelError: a class that the legend does not have, or has under another name.
    """
    ids = {IGNORE: IGNORE}
    for class_id in np.unique(classes.class_ids[classes.class_ids != IGNORE]).tolist():
        name = classes.names[class_id]
        fitting = [
            entry.class_id
            for entry in legend
            if (entry.name == name or _nameless(entry.class_id) in (name, entry.name))
            and (entry.class_id == class_id or not classes.is_numbered)
        ]
        if not fitting:
            said = ", ".join(f"{entry.class_id} {entry.name}" for entry in legend)
            what = f"{class_id} ({name})" if classes.is_numbered else repr(name)
            raise LabelError(
                f"{path}: class {what} is not one of those in use ({said}); correct its name or "
                f"number, or leave it out with --ignore-class."
            )
        ids[class_id] = fitting[0]
    return np.array([ids[class_id] for class_id in classes.class_ids.tolist()], dtype=np.int64)


def unlabelled_channel(path: str, legend: Legend, unlabelled: Unlabelled) -> int:
    """Channel of pixels without a label, or IGNORE.

    Raises:
        LabelError: they are to be background, and the legend has none.
    """
    if unlabelled == "ignore":
        return IGNORE
    background = _background_id({entry.class_id: entry.name for entry in legend})
    if background is None:
        raise LabelError(
            f"{path}: pixels without a label cannot be background, as the classes are "
            f"{', '.join(legend.names)}; leave out --unlabelled background, or add that class."
        )
    return legend.class_ids.tolist().index(background)


def channel_dtype(legend: Legend) -> np.dtype[Any]:
    """int16 where it holds every channel, else int32."""
    return np.dtype(np.int16 if len(legend) <= np.iinfo(np.int16).max else np.int32)


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
            f"{path}: column {field!r} holds {fractions[0]}, which is no class: give names or "
            f"whole numbers, or choose another column with --class-field."
        )
    return [None if value is None else round(float(value)) for value in values]


def _names_of_numbers(
    path: str, numbers: Sequence[int | None], names: Sequence[Any] | None
) -> dict[int, str]:
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
    everything = {n: found.get(n, _nameless(n)) for n in numbers if n is not None}
    by_name: dict[str, int] = {}
    for number, name in everything.items():
        if by_name.setdefault(name, number) != number:
            raise LabelError(
                f"{path}: {name!r} is the name of classes {by_name[name]} and {number}; give each "
                f"its own, or choose one of the columns with --class-field."
            )
    return everything


def _numbered(names: Sequence[str]) -> dict[str, int]:
    others = [name for name in names if name != _BACKGROUND]
    numbered = {name: class_id for class_id, name in enumerate(others, start=1)}
    return {_BACKGROUND: 0, **numbered} if _BACKGROUND in names else numbered


def _without(path: str, texts: Sequence[str | None], ignored: Sequence[str]) -> list[str | None]:
    there = sorted({text for text in texts if text is not None})
    unknown = [name for name in ignored if name not in there]
    if unknown:
        raise LabelError(
            f"{path}: has no class {unknown[0]!r} to ignore; its classes are {', '.join(there)}."
        )
    return [None if text in ignored else text for text in texts]


def _check_range(path: str, field: str, numbers: Sequence[int | None]) -> None:
    for number in numbers:
        if number is not None and not 0 <= number <= LARGEST_CLASS_ID:
            raise LabelError(
                f"{path}: column {field!r} holds the class id {number}, and ids go from 0 to "
                f"{LARGEST_CLASS_ID}; renumber it, or leave it out with --ignore-class {number}."
            )


def _nameless(class_id: int) -> str:
    """What a class is called that has a number only."""
    return f"class {class_id}"


def _background_id(names: Mapping[int, str]) -> int | None:
    """The class called background, or class 0 where it has no name of its own."""
    for class_id, name in names.items():
        if name.casefold() == _BACKGROUND:
            return class_id
    return 0 if names.get(0) == _nameless(0) else None


def _with_background(path: str, names: Mapping[int, str]) -> dict[int, str]:
    background = _background_id(names)
    if background is None and 0 in names:
        raise LabelError(
            f"{path}: pixels without a label cannot become class 0, background: class 0 is "
            f"{names[0]!r}; give that class another number."
        )
    if background is None or names[background] == _nameless(0):
        return {**names, 0: _BACKGROUND}
    return dict(names)
