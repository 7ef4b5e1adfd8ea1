"""Statistics of the bands, measured at training time and saved with the model. Loads no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.model.band_units import BandUnits

_BY_BAND = ("mean", "std", "low", "high")
_LARGEST, _LEAST_RANGE = 1e37, 1e-35
"""Beyond them a value, or the range of a band, has no place among numbers of 32 bits."""
_NEGLIGIBLE = 1e30
_LEAST_VARIANCE = 1e-6
"""Of a component, as a fraction of the largest: below it is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Distribution of the bands of the training scenes.

    The network takes pixels as (value - mean) / divisor.
    """

    mean: tuple[float, ...]
    """Per band, in the scene's units."""
    std: tuple[float, ...]
    """Per band, above 0."""
    low: tuple[float, ...]
    """Per band, the 1st percentile of the valid pixels of the training scenes."""
    high: tuple[float, ...]
    """Per band, the 99th percentile."""
    dtype: str
    """Type of the training scenes' pixels, such as uint8."""
    units: BandUnits | None = None
    """Scale and offset of the bands of the training scenes; None if these have no tags."""

    @property
    def divisors(self) -> tuple[float, ...]:
        """Per band, std; a number that leaves nothing of a band that was constant in training."""
        ranges = zip(self.low, self.high, self.std, strict=True)
        return tuple(std if high > low else _NEGLIGIBLE for low, high, std in ranges)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""
        values = {name: list(getattr(self, name)) for name in _BY_BAND} | {"dtype": self.dtype}
        if self.units is None:
            return values
        return values | {"scale": list(self.units.scales), "offset": list(self.units.offsets)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BandStatistics:
        """Read what `to_json` wrote; ValueError or KeyError if it is damaged."""
        lists = {name: tuple(float(value) for value in values[name]) for name in _BY_BAND}
        if len({len(entries) for entries in lists.values()}) != 1 or not lists["mean"]:
            raise ValueError("the statistics of the bands differ in length")
        numbers = [value for entries in lists.values() for value in entries]
        if not all(math.isfinite(value) for value in numbers) or min(lists["std"]) <= 0:
            raise ValueError("the statistics of the bands are not finite numbers")
        units = None
        if "scale" in values:
            units = BandUnits.of(values["scale"], values["offset"])
        return cls(dtype=str(values["dtype"]), units=units, **lists)

    def in_units(self, units: BandUnits) -> BandStatistics:
        """The same distribution, in stored values of scenes with another scale and offset.

        The values of such scenes are then normalized like those of the training.
        """
        assert self.units is not None
        gain, shift = self.units.conversion_to(units)

        def moved(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple((np.array(values) * gain + shift).tolist())

        return dataclasses.replace(
            self,
            mean=moved(self.mean),
            std=tuple((np.array(self.std) * gain).tolist()),
            low=moved(self.low),
            high=moved(self.high),
            units=units,
        )

    def with_rgb(
        self, mean: Sequence[float], std: Sequence[float], *, bands: Sequence[int] | None = None
    ) -> BandStatistics:
        """The same, with the RGB mean and standard deviation of a published backbone's training.

        Those are for 8-bit RGB, as fractions of 255; other pixels keep their own statistics.

        Args:
            mean: of red, green and blue.
            std: of red, green and blue.
            bands: positions of red, green and blue; by default of the only three bands.
        """
        if bands is None and len(self.mean) == len(mean):
            bands = range(len(mean))
        if self.dtype != "uint8" or bands is None:
            return self
        means, stds = list(self.mean), list(self.std)
        for band, its_mean, its_std in zip(bands, mean, std, strict=True):
            means[band], stds[band] = 255 * its_mean, 255 * its_std
        return dataclasses.replace(self, mean=tuple(means), std=tuple(stds))


def measure_statistics(
    samples: Iterable[tuple[NDArray[Any], NDArray[np.bool_]]],
    *,
    dtype: str,
    what: str,
    bands: Sequence[int] | None = None,
) -> BandStatistics:
    """Statistics of the valid pixels of samples of a scene.

    Values are clipped to the 1st and the 99th percentile of each band, so that glint and broken
    pixels do not move mean and standard deviation; to its least and largest value where more than
    98% of a band are one value. A constant band carries nothing: it goes in as 0.

    Args:
        samples: pixels (bands, height, width) and valid (height, width), as a scene reads them.
        dtype: type of the pixels, for the record.
        what: what is measured, for messages.
        bands: numbers of the bands, for messages; from 1 by default.

    Raises:
        SceneError: there is nothing to measure, or numbers of 32 bits cannot hold it.
    """
    values = _valid_values(samples)
    if values.size == 0:
        raise SceneError(
            f"{what}: no pixel holds data where it is labelled, so there is nothing to train on; "
            f"label other places, or check which value means nodata."
        )
    low, high = np.percentile(values, (1, 99), axis=1)
    rare = low == high
    low = np.where(rare, values.min(axis=1), low)
    high = np.where(rare, values.max(axis=1), high)
    # Not by the standard deviation: that of many times 0.1 is not 0 but 1e-17.
    varies = high > low
    _check_range(low, high, what, bands or range(1, len(low) + 1))
    if not varies.any():
        raise SceneError(
            f"{what}: every labelled pixel has the same value, so there is nothing to learn; give "
            f"other bands with --bands, or another scene."
        )
    clipped = np.clip(values, low[:, None], high[:, None])
    return BandStatistics(
        mean=tuple(np.where(varies, clipped.mean(axis=1), low).tolist()),
        std=tuple(np.where(varies, clipped.std(axis=1), 1.0).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        dtype=dtype,
    )


def _check_range(
    low: NDArray[np.float64], high: NDArray[np.float64], what: str, bands: Sequence[int]
) -> None:
    beyond = np.maximum(np.abs(low), np.abs(high)) > _LARGEST
    beyond |= (high > low) & (high / 2 - low / 2 < _LEAST_RANGE / 2)
    if beyond.any():
        first = int(np.flatnonzero(beyond)[0])
        raise SceneError(
            f"{what}: band {bands[first]} holds values from {low[first]:.4g} to {high[first]:.4g}, "
            f"which the network cannot compute with; rescale it, leave it out with --bands, or "
            f"give the right --nodata."
        )


def principal_components(
    samples: Iterable[tuple[NDArray[Any], NDArray[np.bool_]]], statistics: BandStatistics
) -> NDArray[np.float32]:
    """Whitened principal components of normalized pixels: uncorrelated, each of variance 1.

    Args:
        samples: as for `measure_statistics`.
        statistics: of the same samples.

    Returns:
        (components, bands): the product with normalized bands gives the components, the one of
        the largest variance first. There are as many as bands that vary.
    """
    values = _valid_values(samples)
    low, high = (np.array(getattr(statistics, name))[:, None] for name in ("low", "high"))
    mean, std = (np.array(getattr(statistics, name))[:, None] for name in ("mean", "std"))
    covariance = np.atleast_2d(np.cov((np.clip(values, low, high) - mean) / std))
    variances, vectors = np.linalg.eigh(covariance)
    order = np.argsort(variances)[::-1]
    order = order[variances[order] > _LEAST_VARIANCE * variances.max()]
    components = vectors[:, order].T
    # The sign of an eigenvector is arbitrary.
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    scales = np.sign(largest) / np.sqrt(variances[order])[:, None]
    return np.asarray(components * scales, dtype=np.float32)


def _valid_values(
    samples: Iterable[tuple[NDArray[Any], NDArray[np.bool_]]],
) -> NDArray[np.float64]:
    """(bands, pixels)."""
    taken = [pixels[:, valid] for pixels, valid in samples]
    return np.concatenate(taken, axis=1).astype(np.float64) if taken else np.zeros((0, 0))
