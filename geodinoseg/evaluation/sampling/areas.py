"""Accuracy and area with standard errors, from a stratified random sample of a map.

Olofsson, Foody, Herold, Stehman, Woodcock, Wulder (2014), "Good practices for estimating area and
assessing accuracy of land change", Remote Sensing of Environment 148; equations are numbered as
there. Strata are the map's classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.evaluation.accuracy import ratio

Z = 1.96
"""Standard errors in half a 95% interval, as in the paper."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Estimate:
    """Estimates of one kind; NaN where the sample gives none."""

    value: NDArray[np.float64]
    """(classes,), or () for a measure of the whole map."""
    standard_error: NDArray[np.float64]
    """Of the same shape and unit."""

    @property
    def margin(self) -> NDArray[np.float64]:
        """Half the width of the 95% interval: 1.96 standard errors."""
        return np.asarray(Z * self.standard_error, dtype=np.float64)

    def times(self, factor: float) -> Estimate:
        """The estimates in another unit."""
        return Estimate(value=self.value * factor, standard_error=self.standard_error * factor)


@dataclass(frozen=True, eq=False, kw_only=True)
class AreaEstimates:
    """Accuracy and area estimates from a stratified random sample. Made by `estimate_areas`."""

    counts: NDArray[np.int64]
    """(strata, classes) points by mapped class and reference class; the first classes are the
    strata, in the same order, further ones are not on the map."""
    mapped_area_m2: NDArray[np.float64]
    """(strata,) area of each class on the map, square metres."""

    @property
    def total_area_m2(self) -> float:
        """Area of the map, square metres."""
        return float(self.mapped_area_m2.sum())

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """W_i, the fraction of the map's area in each stratum, (strata,)."""
        return np.asarray(self.mapped_area_m2 / self.mapped_area_m2.sum(), dtype=np.float64)

    @cached_property
    def proportions(self) -> NDArray[np.float64]:
        """The error matrix in fractions of the area, (strata, classes): W_i n_ij / n_i+ (eq. 4)."""
        return np.asarray(self.weights[:, None] * self._row_fractions, dtype=np.float64)

    @cached_property
    def overall(self) -> Estimate:
        """Overall accuracy, (): sum of p_ii (eq. 1), variance by eq. 5."""
        users = self._row_fractions.diagonal()
        variance = (self.weights**2 * users * (1 - users) / self._freedom).sum()
        return Estimate(
            value=np.asarray(self.proportions.trace()), standard_error=np.asarray(np.sqrt(variance))
        )

    @cached_property
    def users(self) -> Estimate:
        """User's accuracy, (classes,): p_ii / p_i+ (eq. 2), variance by eq. 6.

        NaN for classes that are not on the map.
        """
        users = self._row_fractions.diagonal()
        errors = np.sqrt(users * (1 - users) / self._freedom)
        return Estimate(value=self._padded(users), standard_error=self._padded(errors))

    @cached_property
    def producers(self) -> Estimate:
        """Producer's accuracy, (classes,): p_jj / p_+j (eq. 3), variance by eq. 7.

        0 for classes that are not on the map; NaN for classes that no point has as its reference.
        """
        strata = len(self.counts)
        columns = self.proportions.sum(axis=0)
        value = ratio(self._on_diagonal(self.proportions), columns)
        spread = self.weights[:, None] ** 2 * self._row_fractions * (1 - self._row_fractions)
        spread = spread / self._freedom[:, None]
        own = self._on_diagonal(spread)
        others = spread.sum(axis=0) - own
        variance = ratio((1 - value) ** 2 * own + value**2 * others, columns**2)
        # A class that is not on the map has accuracy 0, whatever the sample.
        variance[strata:] = np.where(np.isnan(value[strata:]), np.nan, 0.0)
        return Estimate(value=value, standard_error=np.sqrt(variance))

    @cached_property
    def areas_m2(self) -> Estimate:
        """Area of each class by the reference, (classes,) square metres (eq. 9 to 11)."""
        variance = self.weights[:, None] ** 2 * self._row_fractions * (1 - self._row_fractions)
        errors = np.sqrt((variance / self._freedom[:, None]).sum(axis=0))
        fraction = Estimate(value=self.proportions.sum(axis=0), standard_error=errors)
        return fraction.times(self.total_area_m2)

    @cached_property
    def _row_fractions(self) -> NDArray[np.float64]:
        """n_ij / n_i+, (strata, classes)."""
        return np.asarray(self.counts / self.counts.sum(axis=1, keepdims=True), dtype=np.float64)

    @cached_property
    def _freedom(self) -> NDArray[np.int64]:
        """n_i+ - 1; at least 1, as a stratum of one pixel has no variance to divide."""
        return np.asarray(np.maximum(self.counts.sum(axis=1) - 1, 1), dtype=np.int64)

    def _padded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(strata,) as (classes,), NaN where there is no stratum."""
        padded = np.full(self.counts.shape[1], np.nan, dtype=np.float64)
        padded[: len(values)] = values
        return padded

    def _on_diagonal(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(classes,) of (strata, classes), 0 where there is no stratum."""
        diagonal = np.zeros(matrix.shape[1], dtype=np.float64)
        diagonal[: len(matrix)] = matrix.diagonal()
        return diagonal


def estimate_areas(counts: Any, mapped_area_m2: Any) -> AreaEstimates:
    """Estimate accuracy and area from a stratified random sample.

    Args:
        counts: (strata, classes) points by mapped class (rows) and reference class (columns).
            Column i is the class of row i; columns beyond the rows are classes that the map does
            not have.
        mapped_area_m2: (strata,) area of each mapped class, square metres.

    Returns:
        Overall, user's and producer's accuracy and areas, each with its standard error.

    Raises:
        ValueError: the shapes do not fit, a stratum has no point or no area, or a number is
            negative or not finite.
    """
    matrix = np.asarray(counts, dtype=np.int64)
    areas = np.asarray(mapped_area_m2, dtype=np.float64)
    if matrix.ndim != 2 or areas.shape != matrix.shape[:1] or matrix.shape[1] < len(matrix):
        raise ValueError(
            f"counts are {matrix.shape}, areas {areas.shape}: give (strata, classes), with as many "
            f"classes as strata or more, and (strata,)."
        )
    if not (np.isfinite(areas) & (areas > 0)).all() or (matrix < 0).any():
        raise ValueError("areas must be above 0, and counts 0 or more.")
    if not matrix.sum(axis=1).all():
        raise ValueError("a stratum has no point; leave it out of the map.")
    return AreaEstimates(counts=matrix, mapped_area_m2=areas)
