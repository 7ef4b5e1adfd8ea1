"""From the classes of labels to the legend of a map, and to class indices: positions in it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError, LegendError, one_line
from geodinoseg.labels.classes import IGNORE, FeatureClasses, ids_of_names
from geodinoseg.legend import BACKGROUND, Legend, LegendClass, default_name, folded_name

_FEWEST_CLASSES = 2
_MOST_LISTED = 30
_log = logging.getLogger(__name__)


def shared_names(found: Sequence[tuple[str, FeatureClasses]]) -> dict[int, str]:
    """Ids and names of all classes that occur in the labels of several scenes.

    Ids stay as they are in the files; names without numbers that the files number differently
    are renumbered together. `found` has path and classes of the labels of each scene.
    """
    if not any(classes.is_numbered for _, classes in found):
        return _shared_by_name([_occurring_names(classes) for _, classes in found])
    shared: dict[int, str] = {}
    for path, classes in found:
        # Names without numbers have to be among those of the other files.
        for class_id, name in _occurring_names(classes).items() if classes.is_numbered else ():
            other = shared.get(class_id, name)
            if other != name and default_name(class_id) not in (other, name):
                raise LabelError(
                    f"{path}: class {class_id} is called {name!r}, and {other!r} in the labels of "
                    f"another scene; give it one name, or number the classes alike."
                )
            shared[class_id] = name if other == default_name(class_id) else other
    return shared


def make_legend(path: str, names: Mapping[int, str], *, colors: Mapping[int, str]) -> Legend:
    """The legend of the classes that occur, by id; those without a colour get one."""
    if len(names) < _FEWEST_CLASSES:
        only = f"one class only, {next(iter(names.values()))!r}" if names else "no class"
        raise LabelError(
            f"{path}: has {only} in the scene, and a map needs two; label another class, or use "
            f"--unlabelled background if everything without a label is one."
        )
    try:
        return Legend.of_names(names, colors)
    except LegendError as error:
        raise LabelError(f"{path}: {one_line(error)}; rename that class.") from error


def add_background(path: str, names: Mapping[int, str], given: Mapping[int, str]) -> dict[int, str]:
    """Names of the classes and of the background, which pixels without a label are.

    `given` has its number and name where a legend file gives them; else it is class 0.
    """
    background = _background_id(names)
    if background is not None:
        return {**names, 0: BACKGROUND} if names[background] == default_name(0) else dict(names)
    added = dict(given) or {0: BACKGROUND}
    taken = next((class_id for class_id in added if class_id in names), None)
    if taken is not None:
        raise LabelError(
            f"{path}: pixels without a label cannot become class {taken}, background: class "
            f"{taken} is {names[taken]!r}; give that class another number."
        )
    return {**names, **added}


def match_to_legend(
    path: str,
    classes: FeatureClasses,
    legend: Legend,
    renames: Sequence[tuple[str, str]] = (),
) -> NDArray[np.int64]:
    """Class ids of the features in a given legend; a class that it lacks is an error.

    Classes match by their name, and by their id too where the file gives one. A class that has a
    number and no name matches by its number. Names that differ only in case or spaces match, with
    a warning.

    Args:
        path: for messages.
        classes: of the features.
        legend: the classes to match.
        renames: pairs of a class of the features, by name or number, and the class of the legend,
            by name or id, that it is mapped to.

    Returns:
        (features,), IGNORE where the class is unknown.
    """
    ids = {IGNORE: IGNORE}
    others = _renamed(path, classes, legend, renames)
    for class_id, name in _occurring_names(classes).items():
        number = class_id if classes.is_numbered else None
        found = others.get(class_id) or _matching(path, legend, number, name)
        if found is None:
            what = f"{class_id} ({name})" if classes.is_numbered else repr(name)
            raise LabelError(
                f"{path}: class {what} is not a class of the map, whose classes are "
                f"{_listed(legend)}; map it to one of them with --rename "
                f"{shlex.quote(name)}=CLASS, or leave it out with --ignore-class."
            )
        ids[class_id] = found.class_id
    return np.array([ids[class_id] for class_id in classes.class_ids.tolist()], dtype=np.int64)


def warn_of_similar_names(path: str, names: Iterable[str]) -> None:
    """Warn of class names that differ only in case or spaces."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(folded_name(name), []).append(name)
    for found in alike.values():
        if len(found) > 1:
            _log.warning(
                "%s: the names of the classes %s differ only in case or spaces; they count as %d "
                "classes. If they are one class, give them one name.",
                path,
                " and ".join(map(repr, sorted(found))),
                len(found),
            )


def background_index(path: str, legend: Legend) -> int:
    """Class index of the background; a legend without one is an error."""
    background = _background_id({entry.class_id: entry.name for entry in legend})
    if background is None:
        raise LabelError(
            f"{path}: pixels without a label cannot be background, as the classes are "
            f"{', '.join(legend.names)}; leave out --unlabelled background or --extent, or add "
            f"that class."
        )
    return int(legend.class_ids.tolist().index(background))


def class_index_dtype(legend: Legend) -> np.dtype[Any]:
    """int16 where it holds every class index, else int32."""
    return np.dtype(np.int16 if len(legend) <= np.iinfo(np.int16).max else np.int32)


def _occurring_names(classes: FeatureClasses) -> dict[int, str]:
    """Names of the class ids that occur, by id."""
    occurring = np.unique(classes.class_ids[classes.class_ids != IGNORE]).tolist()
    return {class_id: classes.names[class_id] for class_id in occurring}


def _shared_by_name(files: Sequence[Mapping[int, str]]) -> dict[int, str]:
    entries = {entry for names in files for entry in names.items()}
    names = {name for _, name in entries}
    if len({class_id for class_id, _ in entries}) == len(names) == len(entries):
        return dict(entries)
    return {class_id: name for name, class_id in ids_of_names(names).items()}


def _matching(path: str, legend: Legend, class_id: int | None, name: str) -> LegendClass | None:
    """The class of a legend with this name (and id, where given); None if there is none."""
    exact = [entry for entry in legend if _matches(entry, class_id, name, fold=str)]
    alike = [entry for entry in legend if _matches(entry, class_id, name, fold=folded_name)]
    if exact:
        return exact[0]
    if len(alike) != 1:
        return None
    _log.warning("%s: class %r is matched to class %r of the map.", path, name, alike[0].name)
    return alike[0]


def _matches(
    entry: LegendClass, class_id: int | None, name: str, *, fold: Callable[[str], str]
) -> bool:
    same_name = fold(entry.name) == fold(name)
    if class_id is None:
        return same_name
    has_no_name = default_name(class_id) in (name, entry.name)
    return entry.class_id == class_id and (same_name or has_no_name)


def _renamed(
    path: str, classes: FeatureClasses, legend: Legend, renames: Sequence[tuple[str, str]]
) -> dict[int, LegendClass]:
    """The class of the legend that each renamed class id is mapped to."""
    found: dict[int, LegendClass] = {}
    own = classes.names
    for name, target in renames:
        entry = next((e for e in legend if target in (e.name, str(e.class_id))), None)
        if entry is None:
            raise LabelError(
                f"{path}: {name!r} cannot be renamed to {target!r}, which is not a class of the "
                f"map; its classes are {_listed(legend)}."
            )
        numbers = [number for number in own if classes.is_numbered and str(number) == name]
        renamed = numbers + [number for number, text in own.items() if text == name]
        if not renamed:
            raise LabelError(
                f"{path}: has no class {name!r} to rename; its classes are "
                f"{', '.join(sorted(own.values())) or 'none'}."
            )
        found |= dict.fromkeys(renamed, entry)
    return found


def _listed(legend: Legend) -> str:
    shown = [f"{entry.class_id} {entry.name}" for entry in legend.classes[:_MOST_LISTED]]
    more = len(legend) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


def _background_id(names: Mapping[int, str]) -> int | None:
    """The class called background, or class 0 where it has no name of its own."""
    for class_id, name in names.items():
        if name.casefold() == BACKGROUND:
            return class_id
    return 0 if names.get(0) == default_name(0) else None
