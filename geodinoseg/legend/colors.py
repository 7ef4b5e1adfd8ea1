"""Colours of classes that have none: by the meaning of their names, else from a palette.

No two classes get one colour. Colours that a colour-blind reader could confuse with another are
used last.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count

# Distinct on imagery and from each other, for colour-blind readers too (after Paul Tol's schemes).
PALETTE = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee7733",
    "#332288",
    "#44bb99",
    "#ddaa33",
    "#882255",
    "#99ddff",
    "#bbcc33",
    "#ffaabb",
    "#997700",
    "#004488",
)

# Colours by words in the names of classes. Any two differ by at least 10 in CIELAB, also with each
# kind of colour-blindness (tests/legend/test_colors.py).
_MEANINGS = {
    "#1f5fc4": "water waters waterbody river lake sea ocean stream creek pond canal reservoir pool",
    "#2cc0c0": "wetland marsh swamp bog fen mangrove",
    "#0f4a24": "forest tree wood woodland canopy coniferous deciduous evergreen",
    "#7b9e2c": "shrub shrubland bush bushland scrub hedge heath",
    "#9ed070": "grass grassland lawn meadow pasture turf vegetation herbaceous",
    "#e0bc40": "crop cropland field farmland farm arable agriculture agricultural",
    "#de4a4a": "building house roof rooftop built urban settlement",
    "#a0a0a0": "road street highway motorway asphalt pavement paved parking runway impervious",
    "#8a5726": "bare soil earth dirt ground barren mud",
    "#f5e9c0": "sand beach dune",
    "#ffffff": "snow ice glacier",
    "#2b2b33": "shadow",
}
_COLOR_OF_WORD = {word: color for color, words in _MEANINGS.items() for word in words.split()}
# Of what is not there, or of anything else, no word tells the colour.
_NEGATIONS = {"no", "non", "not", "without", "other", "others", "un", "former"}
# Camel case counts as several words.
_WORDS = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TINT = 0.4
"""Fraction of white or black in the shades of a second class of the same meaning."""
_CONFUSED = 9.0
"""Distance in CIELAB, as a colour-blind reader sees it, below which colours are alike."""
_TURNS, _GOLDEN = 600, 0.618034
_LIGHTNESS, _SATURATION = (0.5, 0.35, 0.68), (0.65, 0.75, 0.6)
# An odd factor visits each of the 2^24 colours once.
_FACTOR, _COLORS = 0x9E3779, 1 << 24

# Colours as seen with protanopia, deuteranopia and tritanopia (Machado et al. 2009, severity 1), in
# linear RGB; the first is normal vision.
_VISIONS = (
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
)
# From linear RGB to XYZ over the white point D65.
_XYZ = (
    (0.4124 / 0.9505, 0.3576 / 0.9505, 0.1805 / 0.9505),
    (0.2126, 0.7152, 0.0722),
    (0.0193 / 1.089, 0.1192 / 1.089, 0.9505 / 1.089),
)
_Vector = tuple[float, ...]


def default_colors(names: Sequence[str], *, taken: Iterable[str] = ()) -> list[str]:
    """A colour for each class, #rrggbb; the same names give the same colours.

    Words such as water, grass, forest, building and road give a colour that people expect; the last
    such word of a name counts, whole and in any case. Other classes get colours of the palette.

    Args:
        names: of the classes.
        taken: colours of other classes, which are not used again.
    """
    used = [color.lower() for color in taken]
    shades = {color: _Supply(_shades(color)) for color in _MEANINGS}
    meanings = [shades.get(meaning_color(name) or "") for name in names]
    found = [None if supply is None else supply.next_color(used) for supply in meanings]
    palette, further = _Supply(PALETTE), _further_colors()
    known = set(used)
    colors = []
    for color in found:
        chosen = color or palette.next_color(used) or palette.next_deferred(used)
        colors.append(chosen or next(other for other in further if other not in known))
        known.add(colors[-1])
    return colors


def meaning_color(name: str) -> str | None:
    """The colour that the words of a name suggest; None if they suggest none."""
    words = [word.casefold() for word in _WORDS.findall(_HUMP.sub(" ", name))]
    if _NEGATIONS.intersection(words):
        return None
    # In English the last noun says what a thing is: a forest road is a road.
    found = (_COLOR_OF_WORD.get(word, _COLOR_OF_WORD.get(_singular(word))) for word in words[::-1])
    return next(filter(None, found), None)


def confusion(first: str, second: str) -> float:
    """Distance of two colours in CIELAB, as the reader sees it who tells them apart worst."""
    pairs = zip(_seen_colors(first), _seen_colors(second), strict=True)
    return min(math.dist(one, other) for one, other in pairs)


class _Supply:
    """Colours in order of preference, each given out once."""

    def __init__(self, colors: Iterable[str]) -> None:
        self._left = list(colors)
        self._deferred: list[str] = []

    def next_color(self, used: list[str]) -> str | None:
        """The next one that nobody confuses with a used one, which it is added to."""
        while self._left:
            color = self._left.pop(0)
            if all(confusion(color, other) >= _CONFUSED for other in used):
                used.append(color)
                return color
            self._deferred.append(color)
        return None

    def next_deferred(self, used: Sequence[str]) -> str | None:
        """The next of those that `next_color` left out, but not a used one."""
        while self._deferred:
            color = self._deferred.pop(0)
            if color not in used:
                return color
        return None


def _shades(color: str) -> Iterator[str]:
    """A colour, then a lighter and a darker one."""
    yield color
    rgb = _rgb(color)
    for end in (255, 0):
        yield _hex(round(value + _TINT * (end - value)) for value in rgb)


def _further_colors() -> Iterator[str]:
    """All colours there are: at first with hues a golden angle apart, finally in any order."""
    for turn in range(_TURNS):
        kind = turn % len(_LIGHTNESS)
        rgb = colorsys.hls_to_rgb(turn * _GOLDEN % 1, _LIGHTNESS[kind], _SATURATION[kind])
        yield _hex(round(255 * value) for value in rgb)
    for number in count():
        yield f"#{number * _FACTOR % _COLORS:06x}"


def _singular(word: str) -> str:
    for ending, singular in (("ies", "y"), ("shes", "sh"), ("ches", "ch"), ("s", "")):
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word


@lru_cache(maxsize=4096)
def _seen_colors(color: str) -> tuple[_Vector, ...]:
    """L*, a* and b* of a colour with each kind of vision."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _rgb(color))
    ]
    return tuple(_lab(_product(vision, linear)) for vision in _VISIONS)


def _lab(linear: _Vector) -> _Vector:
    clipped = [min(max(value, 0.0), 1.0) for value in linear]
    x, y, z = (
        value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116
        for value in _product(_XYZ, clipped)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _product(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> _Vector:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _hex(rgb: Iterable[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)
