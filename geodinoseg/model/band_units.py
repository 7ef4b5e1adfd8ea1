"""Scale and offset of bands, and conversion between scenes that differ in them.

A band stores `value`; `value * scale + offset` is the measured value, such as a reflectance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-6
"""Relative difference up to which numbers are equal, as one may have been stored in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandUnits:
    """Scale and offset of each band from the tags of a file; 1 and 0 without tags."""

    scales: tuple[float, ...]
    """Scale of each band, not 0."""
    offsets: tuple[float, ...]
    """Offset of each band, in units of the measured value."""

    @classmethod
    def of(cls, scales: Sequence[float], offsets: Sequence[float]) -> BandUnits:
        """Units from the tags of a file; NaN, infinity and a scale of 0 count as missing."""
        pairs = [
            (float(scale), float(offset))
            if math.isfinite(scale) and math.isfinite(offset) and scale != 0
            else (1.0, 0.0)
            for scale, offset in zip(scales, offsets, strict=True)
        ]
        return cls(scales=tuple(s for s, _ in pairs), offsets=tuple(o for _, o in pairs))

    @classmethod
    def untagged(cls, bands: int) -> BandUnits:
        """Units of this number of bands, without tags."""
        return cls(scales=(1.0,) * bands, offsets=(0.0,) * bands)

    @property
    def has_tags(self) -> bool:
        """Whether any band has a scale or an offset."""
        return any(scale != 1 for scale in self.scales) or any(self.offsets)

    def equals(self, other: BandUnits) -> bool:
        """Whether both units are equal, so that values need no conversion."""
        gain, _ = self.conversion_to(other)
        own, others = np.array(self.offsets), np.array(other.offsets)
        size = np.maximum(np.maximum(np.abs(own), np.abs(others)), np.abs(self.scales))
        return bool(
            (np.abs(gain - 1) < _TOLERANCE).all()
            and (np.abs(own - others) < _TOLERANCE * size).all()
        )

    def conversion_to(self, other: BandUnits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(bands,) gain and shift: `value * gain + shift` is a value of these units in `other`."""
        own, others = np.array(self.scales), np.array(other.scales)
        return own / others, (np.array(self.offsets) - np.array(other.offsets)) / others

    def can_be_converted_to(self, other: BandUnits) -> bool:
        """Whether both have tags, and no scale has the opposite sign of the other's."""
        gain, _ = self.conversion_to(other)
        return self.has_tags and other.has_tags and bool((gain > 0).all())

    def conversion_text(self, other: BandUnits) -> str:
        """The conversion as a formula, such as 'value * 0.5 - 1000'."""
        gain, shift = (_numbers_text(numbers.tolist()) for numbers in self.conversion_to(other))
        text = f"value{'' if gain == '1' else f' * {gain}'}{'' if shift == '0' else f' + {shift}'}"
        return text.replace("+ -", "- ")

    def convert(self, values: NDArray[Any], other: BandUnits) -> NDArray[np.float32]:
        """Convert values (bands, ...) to the other units; float32."""
        gain, shift = self.conversion_to(other)
        shape = (-1, *[1] * (values.ndim - 1))
        converted = values.astype(np.float64) * gain.reshape(shape) + shift.reshape(shape)
        return converted.astype(np.float32)

    def __str__(self) -> str:
        """Scale and offset, as a single number each if all bands have the same."""
        return f"scale {_numbers_text(self.scales)}, offset {_numbers_text(self.offsets)}"


def _numbers_text(numbers: Sequence[float]) -> str:
    distinct = dict.fromkeys(numbers)
    return "/".join(f"{number:.6g}" for number in (distinct if len(distinct) == 1 else numbers))
