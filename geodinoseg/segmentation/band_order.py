"""Whether the bands of a scene are in the order of a model's training, by their descriptions."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from geodinoseg.errors import SceneError
from geodinoseg.model.description import ModelDescription
from geodinoseg.model.tile_model import TileModel
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.settings import SegmentationSettings

logger = logging.getLogger(__name__)

_PADDING = re.compile(r"(?<=b)0+(?=\d)")
"""B04 and B4 are the same band."""


def bands_by_name(scene: Scene, names: Sequence[str]) -> tuple[int, ...] | None:
    """The bands of a file that have these names, in this order; None unless all are known.

    Args:
        scene: all bands of its file are compared.
        names: descriptions of bands; empty for a band without one.
    """
    here = [_plain(name) for name in scene.names]
    wanted = [_plain(name) for name in names]
    is_told = all(name and here.count(name) == wanted.count(name) == 1 for name in wanted)
    return tuple(here.index(name) + 1 for name in wanted) if is_told else None


def check_band_order(
    scene: Scene, model: ModelDescription | TileModel, settings: SegmentationSettings
) -> None:
    """Refuse a scene whose bands have the names of the model's, but at other places.

    Logs a warning if the bands were chosen by the user, who may know better.

    Raises:
        SceneError: the bands are others than the model's, and none were chosen.
    """
    names: tuple[str, ...] = getattr(model, "band_names", ())
    found = bands_by_name(scene, names) if names else None
    if found is None or found == scene.bands:
        return
    read, right = (",".join(map(str, bands)) for bands in (scene.bands, found))
    text = (
        f"{scene.source.name}: bands {read} are described as "
        f"{', '.join(scene.names[band - 1] for band in scene.bands)}, but the model was trained on "
        f"{', '.join(names)}"
    )
    if settings.bands is None:
        raise SceneError(
            f"{text}; give --bands {right}, or --bands {read} if the descriptions are wrong."
        )
    logger.warning("%s, which are bands %s; the map will be wrong if that is true.", text, right)


def _plain(name: str) -> str:
    return _PADDING.sub("", name.strip().casefold())
