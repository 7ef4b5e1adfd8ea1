"""Messages about how scenes mark missing pixels: nodata, alpha, and collars that are not marked."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.rasters.scene_fingerprint import scene_files
from geodinoseg.segmentation.input_checks import has_valid_pixels, sampled_values

logger = logging.getLogger(__name__)

_GRADED_FRACTION = 0.1
"""Fraction of pixels that are neither transparent nor opaque; feathered edges are fewer."""
_OPAQUE = (255, 65_535)
"""Value of opaque alpha in 8 and in 16 bits; 0 is transparent."""
_MOST_SOURCES = 50

_LARGEST_STEP_PX = 16
"""Every 16th row and column finds any collar large enough to warn about."""
_SAMPLED_PIXELS = 4096
"""Of a small scene, more rows and columns."""
_WARN_FRACTION = 0.02
_COMMON_NODATA = -9999

_Note = tuple[int, str]
"""Level of a message, and the message without the name of the scene."""


def report_missing_pixels(scenes: Sequence[Scene], *, bands_chosen: bool) -> None:
    """Log which bands are left out as alpha, and missing pixels that may count as measured.

    Scenes with the same message share one line.

    Args:
        scenes: a few small windows of each are read.
        bands_chosen: whether the user named the bands; if so, no band is suspected to be alpha.
    """
    found: dict[_Note, list[Scene]] = {}
    for scene in scenes:
        for note in _notes(scene, bands_chosen=bands_chosen):
            found.setdefault(note, []).append(scene)
    for (level, text), same in found.items():
        logger.log(level, "%s: %s", names_text(same), text)


def names_text(scenes: Sequence[Scene]) -> str:
    """The name of the first scene, and the number of further ones."""
    more = len(scenes) - 1
    return f"{scenes[0].source.name}{f' and {more} more scenes' if more else ''}"


def collar_values(scene: Scene) -> tuple[int, ...]:
    """Values v such that a pixel that is v in every band appears to be nodata if it is not marked.

    They are 0, -9999, and for integers the maximum and (if signed) the minimum of the dtype; the
    maximum only if the scene has no nodata value, as clouds may have it. Empty for a scene with
    alpha or a mask, and for one or two bands, where such values are common.
    """
    if set(scene.validity) - {"nodata"} or len(scene.bands) < 3:
        return ()
    if scene.dtype.kind == "f":
        return (0, _COMMON_NODATA)
    limits = np.iinfo(scene.dtype)
    most = () if scene.validity else (int(limits.max),)
    values = (0, *most, int(limits.min), _COMMON_NODATA)
    return tuple(dict.fromkeys(value for value in values if limits.min <= value <= limits.max))


def is_considerable(pixels: float, of: float) -> bool:
    """Whether too many pixels appear to be nodata for shade or glint to explain it."""
    return pixels > 0 and pixels >= _WARN_FRACTION * of


class CollarWatch:
    """Counts pixels that have a value such as 0 in every band and are not marked as nodata."""

    def __init__(self, scene: Scene) -> None:
        self._path = scene.source.name
        self._values = collar_values(scene)
        given = dict.fromkeys(f"{number:g}" for number in scene.nodata if number is not None)
        self._instead = f", instead of {' and '.join(given)}" if given else ""
        pixels = scene.geobox.height * scene.geobox.width
        self._step = max(1, min(_LARGEST_STEP_PX, math.isqrt(pixels // _SAMPLED_PIXELS)))
        self._counts = dict.fromkeys(self._values, 0)
        self._seen = 0

    def count(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Count a sample of pixels (bands, height, width), those of the scene (height, width)."""
        if not self._values:
            return
        step = (slice(None, None, self._step),) * 2
        inside = valid[step]
        sample = pixels[:, *step][:, inside]
        self._seen += sample.shape[1]
        for value in self._values:
            self._counts[value] += int((sample == value).all(axis=0).sum())

    def take_counts(self) -> dict[str, Any]:
        """The counts since the last call, as plain JSON."""
        counts = {"seen": self._seen, "counts": [self._counts[value] for value in self._values]}
        self._seen, self._counts = 0, dict.fromkeys(self._values, 0)
        return counts

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add the counts of another instance for the same scene."""
        self._seen += counts["seen"]
        for value, count in zip(self._values, counts["counts"], strict=True):
            self._counts[value] += count

    def warn(self) -> None:
        """Log a warning if a considerable fraction of the pixels appears to be nodata."""
        for value, count in self._counts.items():
            if is_considerable(count, self._seen):
                logger.warning(
                    "%s: %.0f%% of the pixels are %d in every band, and the file does not mark "
                    "them as nodata; if they hold no data, run again with --nodata %d%s.",
                    self._path,
                    100 * count / self._seen,
                    value,
                    value,
                    self._instead,
                )


def _notes(scene: Scene, *, bands_chosen: bool) -> Iterator[_Note]:
    checks = [_unusable_nodata, _left_out_alpha, _lost_nodata, _empty_bands]
    if not bands_chosen:
        checks.append(_untagged_alpha)
    for check in checks:
        note = check(scene)
        if note is not None:
            yield note


def _unusable_nodata(scene: Scene) -> _Note | None:
    """That NaN or infinity was given as the nodata value of integers, which cannot be that."""
    value = scene.nodata_override
    if value is None or any(own is not None for own in scene.nodata) or scene.dtype.kind == "f":
        return None
    return logging.WARNING, (
        f"no pixel of type {scene.dtype} can be {value:g}, so --nodata {value:g} marks no missing "
        f"pixels, and that of the file counts no more."
    )


def _left_out_alpha(scene: Scene) -> _Note | None:
    """A note on the band that is left out as alpha; a warning if it looks like a measured band.

    GDAL takes the fourth band of many files of red, green, blue and near infrared for alpha. Alpha
    is 0 or the maximum almost everywhere.
    """
    band = scene.alpha_band
    if band is None or band in scene.bands:
        return None
    if _is_graded(scene, band):
        return logging.WARNING, (
            f"band {band} is left out, because the file marks it as alpha, but it varies like a "
            f"measured band. If it is one, such as near infrared, name it in --bands, or mark it "
            f"as undefined: gdal_edit.py -colorinterp_{band} undefined."
        )
    return logging.INFO, f"band {band} is alpha: it marks missing pixels and is left out."


def _untagged_alpha(scene: Scene) -> _Note | None:
    """A warning if the last band of a file looks like alpha but is not marked as such.

    Such a band holds only 0 and the maximum. A band that the scene does not read matters only if
    it is 0 somewhere.
    """
    last, dtype = len(scene.file_dtypes), np.dtype(scene.file_dtypes[-1])
    # One band is grey, three are RGB.
    if last in {1, 3, scene.alpha_band} or dtype.kind not in "ui":
        return None
    is_read = last in scene.bands
    values = set(np.unique(_sampled_band(scene, last)).tolist())
    opaque = next((value for value in _OPAQUE if value in values), None)
    if opaque is None or not values <= {0, opaque} or not (is_read or 0 in values):
        return None
    others = ",".join(str(band) for band in scene.bands if band != last)
    if is_read:
        effect = "it is read as a measured band"
        otherwise = f"or leave it out with --bands {others} and give --nodata."
    else:
        effect = "pixels where it is 0 count as measured"
        otherwise = f"if it is not, --bands {others} avoids this warning."
    return logging.WARNING, (
        f"band {last} holds only {f'0 and {opaque}' if 0 in values else opaque}, like alpha, but "
        f"the file does not mark it as alpha, so {effect}. If it is alpha, mark it: gdal_edit.py "
        f"-colorinterp_{last} alpha FILE; {otherwise}"
    )


def _lost_nodata(scene: Scene) -> _Note | None:
    """A warning if a source of a VRT marks missing pixels and the VRT does not.

    Opens up to 50 of the sources. For a scene without nodata, mask and alpha.
    """
    if scene.validity or not scene.source.path.lower().endswith(".vrt"):
        return None
    sources = [path for path in scene_files(scene) if not path.lower().endswith((".vrt", ".xml"))]
    for path in sources[:: -(-len(sources) // _MOST_SOURCES) or 1]:
        mark = _mark_of_missing(path, scene)
        if mark is not None:
            return logging.WARNING, (
                f"its source {path} marks missing pixels with {mark}, but the VRT does not, so "
                f"they count as measured; build it again with gdalbuildvrt -srcnodata and "
                f"-vrtnodata, or give --nodata."
            )
    return None


def _mark_of_missing(path: str, scene: Scene) -> str | None:
    try:
        source = open_scene(path, allow_external=scene.source.trusted)
    except SceneError:
        return None  # another kind of file, such as a table
    if "nodata" in source.validity:
        return f"nodata {next(value for value in source.nodata if value is not None):g}"
    return "a mask" if "mask" in source.validity else None


def _empty_bands(scene: Scene) -> _Note | None:
    text = empty_bands(scene)
    return None if text is None else (logging.WARNING, f"{text}.")


def empty_bands(scene: Scene) -> str | None:
    """Which bands hold no data wherever sampled, and what follows; None if all or none do.

    For bands of floating point, where a pixel is missing if it is missing in one band.
    """
    if scene.dtype.kind != "f" or has_valid_pixels(scene):
        return None
    empty = [
        band
        for band, nodata in zip(scene.bands, scene.nodata, strict=True)
        if not _has_data(_sampled_band(scene, band), nodata)
    ]
    if len(empty) in {0, len(scene.bands)}:
        return None
    return (
        f"band {', '.join(map(str, empty))} holds no data (NaN, infinity or nodata), and a pixel "
        f"without data in one band counts as missing; choose bands that hold data with --bands"
    )


def _has_data(values: NDArray[np.float64], nodata: float | None) -> bool:
    is_data = np.isfinite(values)
    # 0 may be a value: as nodata it marks a pixel only where all bands are 0.
    return bool((is_data & (values != nodata) if nodata else is_data).any())


def _is_graded(scene: Scene, band: int) -> bool:
    values = _sampled_band(scene, band)
    most = np.iinfo(scene.dtype).max if scene.dtype.kind in "ui" else 1
    between = (values > 0) & (values < most)
    return values.size > 0 and float(between.mean()) > _GRADED_FRACTION


def _sampled_band(scene: Scene, band: int) -> NDArray[np.float64]:
    """(pixels,) sampled values of one band, including missing pixels."""
    alone = dataclasses.replace(
        scene, bands=(band,), nodata=(None,), scales=(1.0,), offsets=(0.0,), validity=()
    )
    values: NDArray[np.float64] = sampled_values(alone)[0]
    return values
