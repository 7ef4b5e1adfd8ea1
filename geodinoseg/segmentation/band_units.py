"""Scale and offset of a scene's bands against those of a model's training: what is done about them.

Sentinel-2 products from baseline 04.00 on store every value 1,000 higher, and say so by an offset.
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

_ALIKE = 0.1
"""Distance of the values of a scene from those of the training, in training ranges: about none."""
_UNLIKE = 0.15
"""By which a conversion must increase the distance for the tags to be wrong."""
_PERCENTILES = (1.0, 50.0, 99.0)


def in_training_units(scene: Scene, model: _Model) -> _Model:
    """The model as it must be used for a scene whose bands have another scale or offset.

    Says in a line what is done where the tags of scene and training differ.

    Args:
        scene: with the bands in the model's order.
        model: any; only one that knows its statistics and can be set for other units is changed.
    """
    statistics: BandStatistics | None = getattr(model, "statistics", None)
    for_units = getattr(model, "for_units", None)
    if statistics is None or for_units is None or len(statistics.mean) != len(scene.bands):
        return model
    here = units_of(scene)
    own = statistics.units or none_told(len(scene.bands))
    reference = np.array([statistics.low, statistics.mean, statistics.high])
    if not must_be_converted(scene, here, own, reference, whose="the training"):
        return model
    converted: _Model = for_units(here)
    return converted


def units_of(scene: Scene) -> BandUnits:
    """Scale and offset of a scene's bands."""
    return BandUnits.of(scene.scales, scene.offsets)


def none_told(bands: int) -> BandUnits:
    """Those of bands that have none."""
    return BandUnits(scales=(1.0,) * bands, offsets=(0.0,) * bands)


def must_be_converted(
    scene: Scene, here: BandUnits, own: BandUnits, reference: NDArray[np.float64], *, whose: str
) -> bool:
    """Whether the values of a scene are to be brought to other units; says so where tags differ.

    They are where both tell their units, unless the values of the scene are like the others as
    they are stored, and unlike them when converted: then the tags are wrong.

    Args:
        scene: to look at.
        here: its units.
        own: those of a model, or of another scene.
        reference: (3, bands) values that are low, in the middle and high in `own`.
        whose: words for the owner of these units.
    """
    if here.are_those_of(own):
        return False
    name = scene.source.name
    if not here.can_be_brought_to(own):
        logger.warning(
            "%s: its bands have %s, those of %s %s; these cannot be compared, so values are used "
            "as they are stored%s. Give scenes whose tags tell the same.",
            name,
            _told(here),
            whose,
            _told(own),
            _without_offset(here),
        )
        return False
    if _fit_as_stored(sampled_values(scene), here, own, reference):
        logger.warning(
            "%s: its bands have %s, those of %s %s, but its values are alike as they are stored, "
            "and would not be when converted, so they are used as stored. Correct the tags of "
            "whichever is wrong (gdal_edit.py -scale -offset).",
            name,
            here,
            whose,
            own,
        )
        return False
    logger.info(
        "%s: its bands have %s, those of %s %s; its values are brought to these (%s).",
        name,
        here,
        whose,
        own,
        here.conversion_in_words(own),
    )
    return True


def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, bands) values that are low, in the middle and high among (bands, pixels); NaN of none."""
    if values.shape[1] == 0:
        return np.full((len(_PERCENTILES), len(values)), np.nan, dtype=np.float64)
    return np.asarray(np.percentile(values, _PERCENTILES, axis=1))


def _fit_as_stored(
    values: NDArray[np.float64], here: BandUnits, own: BandUnits, reference: NDArray[np.float64]
) -> bool:
    """Whether (bands, pixels) values lie where the others do only if they are not converted."""
    length = reference[2] - reference[0]
    known = length > 0
    if values.shape[1] == 0 or not known.any():
        return False
    gain, shift = here.conversion_to(own)
    found = spread(values)

    def distance(percentiles: NDArray[np.float64]) -> float:
        return float((np.abs(percentiles - reference)[:, known] / length[known]).mean())

    as_stored = distance(found)
    return as_stored < _ALIKE and distance(found * gain + shift) > as_stored + _UNLIKE


def _told(units: BandUnits) -> str:
    return str(units) if units.are_told else "no scale and offset"


def _without_offset(units: BandUnits) -> str:
    """What the offset means for the numbers that are stored, if it is the same for all bands."""
    shifts = {o / s for s, o in zip(units.scales, units.offsets, strict=True)}
    shift = shifts.pop() if len(shifts) == 1 else 0.0
    if shift == 0:
        return ""
    return (
        f" (without the offset they would be {abs(shift):.6g} {'lower' if shift < 0 else 'higher'})"
    )
