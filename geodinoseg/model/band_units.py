"""Scale and offset of bands: values of one scene in the units in which another stores its own.

A band stores `value`; `value * scale + offset` is what was measured, such as a reflectance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-6
"""Relative difference of numbers that were only written in another way, such as in 32 bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandUnits:
    """Scale and offset of each band, as a file's tags have them; 1 and 0 where it has none."""

    scales: tuple[float, ...]
    """Per band, not 0."""
    offsets: tuple[float, ...]
    """Per band, in measured units."""

    @classmethod
    def of(cls, scales: Sequence[float], offsets: Sequence[float]) -> BandUnits:
        """Those of a file; a scale or offset that is no number, or a scale of 0, counts as none."""
        pairs = [
            (float(scale), float(offset))
            if math.isfinite(scale) and math.isfinite(offset) and scale != 0
            else (1.0, 0.0)
            for scale, offset in zip(scales, offsets, strict=True)
        ]
        return cls(scales=tuple(s for s, _ in pairs), offsets=tuple(o for _, o in pairs))

    @property
    def are_told(self) -> bool:
        """Whether any band has a scale or an offset."""
        return any(scale != 1 for scale in self.scales) or any(self.offsets)

    def are_those_of(self, other: BandUnits) -> bool:
        """Whether values need no conversion."""
        gain, _ = self.conversion_to(other)
        own, others = np.array(self.offsets), np.array(other.offsets)
        size = np.maximum(np.maximum(np.abs(own), np.abs(others)), np.abs(self.scales))
        return bool(
            (np.abs(gain - 1) < _SAME).all() and (np.abs(own - others) < _SAME * size).all()
        )

    def conversion_to(self, other: BandUnits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(bands,) gain and shift: value * gain + shift is what the other stores for the same."""
        own, others = np.array(self.scales), np.array(other.scales)
        return own / others, (np.array(self.offsets) - np.array(other.offsets)) / others

    def can_be_brought_to(self, other: BandUnits) -> bool:
        """Whether both are told, and larger values mean more, or less, in both."""
        gain, _ = self.conversion_to(other)
        return self.are_told and other.are_told and bool((gain > 0).all())

    def conversion_in_words(self, other: BandUnits) -> str:
        """What is done with a value, such as 'value * 0.5 - 1000'."""
        gain, shift = (_in_words(numbers.tolist()) for numbers in self.conversion_to(other))
        words = f"value{'' if gain == '1' else f' * {gain}'}{'' if shift == '0' else f' + {shift}'}"
        return words.replace("+ -", "- ")

    def converted(self, values: NDArray[Any], other: BandUnits) -> NDArray[np.float32]:
        """Values (bands, ...) as the other stores them; float32."""
        gain, shift = self.conversion_to(other)
        shape = (-1, *[1] * (values.ndim - 1))
        converted = values.astype(np.float64) * gain.reshape(shape) + shift.reshape(shape)
        return converted.astype(np.float32)

    def __str__(self) -> str:
        """In words, one number where all bands have the same."""
        return f"scale {_in_words(self.scales)}, offset {_in_words(self.offsets)}"


def _in_words(numbers: Sequence[float]) -> str:
    distinct = dict.fromkeys(numbers)
    return "/".join(f"{number:.6g}" for number in (distinct if len(distinct) == 1 else numbers))
