"""Conversion of a scene's values to the scale and offset of a model's training.

Sentinel-2 products from baseline 04.00 on store values that are 1,000 higher, with an offset tag.
"""

from __future__ import annotations

import logging
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.band_units import BandUnits
from geodinoseg.model.tile_model import TileModel
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.input_checks import sampled_values

logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=TileModel)

_NEAR = 0.1
"""Values of similar scenes are nearer than this to those of the training, in training ranges."""
_FARTHER = 0.15
"""If a conversion increases the distance by more than this, the tags are wrong."""
_PERCENTILES = (1.0, 50.0, 99.0)


def in_training_units(scene: Scene, model: _Model) -> _Model:
    """Set a model to the scale and offset of a scene's bands.

    Logs one line if they differ from those of the training.

    Args:
        scene: with the bands in the model's order.
        model: a model without statistics or `for_units` is returned unchanged.
    """
    statistics: BandStatistics | None = getattr(model, "statistics", None)
    for_units = getattr(model, "for_units", None)
    if statistics is None or for_units is None or len(statistics.mean) != len(scene.bands):
        return model
    here = units_of(scene)
    own = statistics.units or BandUnits.untagged(len(scene.bands))
    reference = np.array([statistics.low, statistics.mean, statistics.high])
    if not needs_conversion(scene, here, own, reference, whose="the training"):
        return model
    converted: _Model = for_units(here)
    return converted


def units_of(scene: Scene) -> BandUnits:
    """Scale and offset of a scene's bands."""
    return BandUnits.of(scene.scales, scene.offsets)


def needs_conversion(
    scene: Scene, here: BandUnits, own: BandUnits, reference: NDArray[np.float64], *, whose: str
) -> bool:
    """Whether to convert the values of a scene; logs one line if the units differ.

    Values are converted if both units have tags, unless the stored values are near the reference
    and the converted ones are not, which shows that the tags are wrong.

    Args:
        scene: its values are sampled if the units differ.
        here: units of the scene.
        own: units of a model or of another scene.
        reference: (3, bands) low, middle and high values in `own`.
        whose: name of the owner of `own`, for messages.
    """
    if here.equals(own):
        return False
    units = f"{scene.source.name}: its bands have {_text(here)}, those of {whose} have {_text(own)}"
    if not here.can_be_converted_to(own):
        logger.warning(
            "%s; without comparable tags on both, values are used as stored%s. If that is wrong, "
            "set the tags: gdal_edit.py -scale S -offset O FILE.",
            units,
            _shift_text(here),
        )
        return False
    if _fit_as_stored(sampled_values(scene), here, own, reference):
        logger.warning(
            "%s, but the values agree as stored and would not after a conversion, so they are used "
            "as stored. Correct the wrong tags: gdal_edit.py -scale S -offset O FILE.",
            units,
        )
        return False
    logger.info("%s; values are converted: %s.", units, here.conversion_text(own))
    return True


def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, bands) low, middle and high values of (bands, pixels); NaN without pixels."""
    if values.shape[1] == 0:
        return np.full((len(_PERCENTILES), len(values)), np.nan, dtype=np.float64)
    return np.asarray(np.percentile(values, _PERCENTILES, axis=1))


def _fit_as_stored(
    values: NDArray[np.float64], here: BandUnits, own: BandUnits, reference: NDArray[np.float64]
) -> bool:
    """Whether values (bands, pixels) are near the reference as stored, but not converted."""
    length = reference[2] - reference[0]
    known = length > 0
    if values.shape[1] == 0 or not known.any():
        return False
    gain, shift = here.conversion_to(own)
    found = spread(values)

    def distance(percentiles: NDArray[np.float64]) -> float:
        return float((np.abs(percentiles - reference)[:, known] / length[known]).mean())

    as_stored = distance(found)
    return as_stored < _NEAR and distance(found * gain + shift) > as_stored + _FARTHER


def _text(units: BandUnits) -> str:
    return str(units) if units.has_tags else "no scale and offset"


def _shift_text(units: BandUnits) -> str:
    """Shift of the stored values due to the offset, if it is the same for all bands."""
    shifts = {o / s for s, o in zip(units.scales, units.offsets, strict=True)}
    shift = shifts.pop() if len(shifts) == 1 else 0.0
    if shift == 0:
        return ""
    direction = "higher" if shift < 0 else "lower"
    return f" ({abs(shift):.6g} {direction} than without an offset)"
