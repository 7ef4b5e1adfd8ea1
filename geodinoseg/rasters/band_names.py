"""Which bands of a scene are red, green and blue, as far as the metadata of its file tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import rasterio
from rasterio.enums import ColorInterp

from geodinoseg.rasters.dataset import open_dataset
from geodinoseg.rasters.scene import Scene

_COLORS = ("red", "green", "blue")
_INTERPRETED = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_NOT_COLORS = {"edge", "infra", "infrared", "nir", "swir", "near", "coastal"}
"""Words that make another band of one that is called red or blue."""
_WAVELENGTHS_NM = {"red": (620, 660, 700), "green": (520, 560, 600), "blue": (450, 485, 515)}
"""Least, usual and largest centre of a band."""
_LEAST_NM = 100.0
"""Smaller numbers are micrometres."""
_LONGEST = 200
"""Characters of a name that are read."""

_NAME_TAG = re.compile(r"common_?name|band_?name|name")
_WAVELENGTH_TAG = re.compile(r"(cent(er|re|ral)_)?wavelength(_(nm|um))?")
_NUMBER = re.compile(r"\s*(\d{1,5}(?:\.\d+)?)")
_WITH_UNIT = re.compile(
    r"(?<![-\u2013.\d])(\d{1,5}(?:\.\d+)?) ?(?:nm|nanomet(?:er|re)s?|[uµμ]m|micromet(?:er|re)s?)\b"
)
_SENSOR_TAG = re.compile(r"spacecraft|satellite|platform|constellation|sensor|mission|product")
_SENSORS = {
    r"sentinel[-_ ]?2|(?<![a-z0-9])s2[abc]?(?![a-z0-9])": ("4", "3", "2"),
    r"landsat[-_ ]?[89]|(?<![a-z0-9])l[co]0[89]": ("4", "3", "2"),
    r"landsat[-_ ]?[457]|(?<![a-z0-9])l[et]0[457]": ("3", "2", "1"),
}
"""Numbers of the red, green and blue bands."""
_SENSOR_BAND = re.compile(r"(?:sr_|toa_)?b0?(\d{1,2}a?)\b")
_ONLY_SENTINEL_2 = "8a"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    names: tuple[str, ...]
    """Lower case."""
    wavelength_nm: float | None
    interpretation: ColorInterp


def red_green_blue(scene: Scene) -> tuple[tuple[int, int, int], str] | None:
    """Which of the chosen bands of a scene are red, green and blue, and what tells it.

    Looked for, in this order, are names (descriptions and tags such as `common_name`), wavelengths,
    the bands of Sentinel-2 and Landsat where the tags or the name of the file tell the sensor, and
    colour interpretation.

    Returns:
        Positions among `scene.bands`, from 0, and the source in words; None if no source tells one
        band of each colour.
    """
    with open_dataset(scene.source) as dataset:
        every = {number: _band(dataset, number) for number in dataset.indexes}
        sensor = _sensor(scene.source.name, dataset, list(every.values()))
    bands = [every[number] for number in scene.bands]
    sources: dict[str, Callable[[], list[list[int]]]] = {
        "their names": lambda: _positions(bands, _has_name),
        "words of their names": lambda: _positions(bands, _has_word),
        "their wavelengths": lambda: _by_wavelength(bands),
        "the sensor and their names": lambda: _by_sensor(bands, sensor),
        "colour interpretation": lambda: [
            [at for at, band in enumerate(bands) if band.interpretation == color]
            for color in _INTERPRETED
        ],
    }
    for source, find in sources.items():
        found = find()
        if all(len(positions) == 1 for positions in found):
            red, green, blue = (positions[0] for positions in found)
            if not _contradicted(bands, (red, green, blue)):
                return (red, green, blue), source
    return None


def _band(dataset: rasterio.DatasetReader, number: int) -> _Band:
    tags = {**dataset.tags(number), **dataset.tags(number, ns="IMAGERY")}
    lower = {name.lower(): value.lower()[:_LONGEST].strip() for name, value in tags.items()}
    described = (dataset.descriptions[number - 1] or "").lower()[:_LONGEST].strip()
    names = (described, *(v for name, v in lower.items() if _NAME_TAG.fullmatch(name)))
    values = [v for name, v in lower.items() if _WAVELENGTH_TAG.fullmatch(name)]
    return _Band(
        names=names,
        wavelength_nm=_wavelength_nm([_NUMBER.match(value) for value in values])
        or _wavelength_nm(map(_WITH_UNIT.search, names)),
        interpretation=dataset.colorinterp[number - 1],
    )


def _wavelength_nm(matches: Iterable[re.Match[str] | None]) -> float | None:
    for match in matches:
        if match is not None:
            number = float(match[1])
            return number if number >= _LEAST_NM else 1000 * number
    return None


def _positions(bands: Sequence[_Band], is_color: Callable[[_Band, str], bool]) -> list[list[int]]:
    """For each colour the positions of its bands."""
    return [[at for at, band in enumerate(bands) if is_color(band, color)] for color in _COLORS]


def _has_name(band: _Band, color: str) -> bool:
    return color in band.names or color[0] in band.names


def _has_word(band: _Band, color: str) -> bool:
    """Whether a name says this colour and no other, as in 'B04 - Red (665 nm)' or 'sr_red'."""
    return _color_words(band) == {color}


def _color_words(band: _Band) -> set[str]:
    words = {word for name in band.names for word in re.findall(r"[a-z]+", name)}
    return words & {*_COLORS, *_NOT_COLORS}


def _contradicted(bands: Sequence[_Band], positions: Sequence[int]) -> bool:
    """Whether names say something else, as in near infrared that is displayed as red."""
    return any(
        _color_words(bands[at]) not in (set(), {color})
        for at, color in zip(positions, _COLORS, strict=True)
    )


def _by_wavelength(bands: Sequence[_Band]) -> list[list[int]]:
    """For each colour the band of the nearest wavelength."""
    found = []
    for least, usual, largest in (_WAVELENGTHS_NM[color] for color in _COLORS):
        distances = {
            at: abs(band.wavelength_nm - usual)
            for at, band in enumerate(bands)
            if band.wavelength_nm is not None and least <= band.wavelength_nm <= largest
        }
        found.append([min(distances, key=distances.__getitem__)] if distances else [])
    return found


def _by_sensor(bands: Sequence[_Band], numbers: tuple[str, ...] | None) -> list[list[int]]:
    found = [_sensor_bands(band) for band in bands]
    return [[at for at, own in enumerate(found) if n in own] for n in numbers or ("",) * 3]


def _sensor_bands(band: _Band) -> set[str]:
    """Numbers of the sensor's bands that a band has names of."""
    matches = map(_SENSOR_BAND.match, band.names)
    return {match[1] for match in matches if match is not None}


def _sensor(
    name: str, dataset: rasterio.DatasetReader, bands: Sequence[_Band]
) -> tuple[str, ...] | None:
    """Numbers of the red, green and blue bands of the sensor; None if it is unknown."""
    tags = [value for tag, value in dataset.tags().items() if _SENSOR_TAG.search(tag.lower())]
    text = " ".join(part[:_LONGEST] for part in (name, *tags)).lower()
    if any(_ONLY_SENTINEL_2 in _sensor_bands(band) for band in bands):
        text += " sentinel-2"
    known = {numbers for pattern, numbers in _SENSORS.items() if re.search(pattern, text)}
    return known.pop() if len(known) == 1 else None
