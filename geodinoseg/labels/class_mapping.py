"""From the classes of labels to the legend of a map, and to its channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, LegendError, one_line
from geodinoseg.labels.classes import BACKGROUND, IGNORE, FeatureClasses, ids_of_names, nameless
from geodinoseg.legend import Legend, LegendClass

Unlabelled = Literal["ignore", "background"]
"""What pixels without a label are: unknown, or a class of their own."""

_FEWEST_CLASSES = 2


def occurring_names(classes: FeatureClasses) -> dict[int, str]:
    """Names of the class ids that occur, by id."""
    occurring = np.unique(classes.class_ids[classes.class_ids != IGNORE]).tolist()
    return {class_id: classes.names[class_id] for class_id in occurring}


def shared_names(found: Sequence[tuple[str, FeatureClasses]]) -> dict[int, str]:
    """Ids and names of all classes that occur in the labels of several scenes.

    Ids stay as they are in the files; where files with names alone number them differently, the
    names are numbered anew, together.

    Args:
        found: path and classes of the labels of each scene.

    Raises:
        LabelError: an id has different names in two files.
    """
    if not any(classes.is_numbered for _, classes in found):
        return _shared_by_name([occurring_names(classes) for _, classes in found])
    shared: dict[int, str] = {}
    for path, classes in found:
        # Names without numbers have to be among those of the other files.
        for class_id, name in occurring_names(classes).items() if classes.is_numbered else ():
            other = shared.get(class_id, name)
            if other != name and nameless(class_id) not in (other, name):
                raise LabelError(
                    f"{path}: class {class_id} is called {name!r}, and {other!r} in the labels of "
                    f"another scene; give it one name, or number the classes alike."
                )
            shared[class_id] = name if other == nameless(class_id) else other
    return shared


def legend_of(
    path: str, names: Mapping[int, str], *, colors: Mapping[int, str] | None = None
) -> Legend:
    """The legend of classes.

    Args:
        path: for messages.
        names: of the classes that occur, by id.
        colors: #rrggbb by class id, where they have some already.

    Raises:
        LabelError: fewer than two classes, or a name that cannot be shown.
    """
    if len(names) < _FEWEST_CLASSES:
        only = f"one class only, {next(iter(names.values()))!r}" if names else "no class"
        raise LabelError(
            f"{path}: has {only} in the scene, and a map needs two; label another class, or say "
            f"--unlabelled background where everything without a label is one."
        )
    try:
        return Legend.of_names(names, colors)
    except LegendError as error:
        raise LabelError(f"{path}: {one_line(error)}; rename that class.") from error


def with_background(
    path: str, names: Mapping[int, str], given: Mapping[int, str]
) -> dict[int, str]:
    """Classes and the background, where pixels without a label are one.

    Args:
        path: for messages.
        names: of the classes that occur, by id.
        given: number and name of the background, where a legend file gives it one; else class 0.

    Raises:
        LabelError: its number is taken by something else.
    """
    background = _background_id(names)
    if background is not None:
        return {**names, 0: BACKGROUND} if names[background] == nameless(0) else dict(names)
    added = dict(given) or {0: BACKGROUND}
    taken = next((class_id for class_id in added if class_id in names), None)
    if taken is not None:
        raise LabelError(
            f"{path}: pixels without a label cannot become class {taken}, background: class "
            f"{taken} is {names[taken]!r}; give that class another number."
        )
    return {**names, **added}


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
    for class_id, name in occurring_names(classes).items():
        fits = _fits_number if classes.is_numbered else _fits_name
        fitting = [entry.class_id for entry in legend if fits(entry, class_id, name)]
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
            f"{', '.join(legend.names)}; leave out --unlabelled background or --extent, or add "
            f"that class."
        )
    return int(legend.class_ids.tolist().index(background))


def channel_dtype(legend: Legend) -> np.dtype[Any]:
    """int16 where it holds every channel, else int32."""
    return np.dtype(np.int16 if len(legend) <= np.iinfo(np.int16).max else np.int32)


def _shared_by_name(files: Sequence[Mapping[int, str]]) -> dict[int, str]:
    entries = {entry for names in files for entry in names.items()}
    names = {name for _, name in entries}
    if len({class_id for class_id, _ in entries}) == len(names) == len(entries):
        return dict(entries)
    return {class_id: name for name, class_id in ids_of_names(names).items()}


def _fits_name(entry: LegendClass, _: int, name: str) -> bool:
    return entry.name == name


def _fits_number(entry: LegendClass, class_id: int, name: str) -> bool:
    same_name = entry.name == name or nameless(class_id) in (name, entry.name)
    return entry.class_id == class_id and same_name


def _background_id(names: Mapping[int, str]) -> int | None:
    """The class called background, or class 0 where it has no name of its own."""
    for class_id, name in names.items():
        if name.casefold() == BACKGROUND:
            return class_id
    return 0 if names.get(0) == nameless(0) else None
