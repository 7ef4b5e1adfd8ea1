"""What a comparison of a map with labels found, as one value that prints and is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geodinoseg.evaluation.accuracy import aligned, shown

if TYPE_CHECKING:
    from pathlib import Path

    from geodinoseg.evaluation.accuracy import Accuracy
    from geodinoseg.evaluation.agreement import Agreement
    from geodinoseg.evaluation.boundaries import BoundaryAgreement, Tolerance
    from geodinoseg.evaluation.calibration import Reliability
    from geodinoseg.evaluation.compare import RegionAssessment
    from geodinoseg.legend import Legend


@dataclass(frozen=True, slots=True, kw_only=True)
class MapAssessment:
    """How right a map is. Made by `evaluate_map`."""

    path: Path | str
    """The class raster; text where it is an address."""
    labels: str
    """The labels it was compared with."""
    legend: Legend
    """Names and order of the classes in all measures."""
    tolerance: Tolerance
    """Of the boundaries."""
    whole: RegionAssessment
    """Of all labelled pixels."""
    regions: tuple[RegionAssessment, ...]
    """Of those in each region that was asked for."""
    agreement: Agreement
    """Where the map is right, as a picture."""
    allow_external: bool = False
    """Whether the class raster may be of a kind that reaches further; see `open_class_raster`."""

    @property
    def accuracy(self) -> Accuracy:
        """Confusion matrix and measures of all labelled pixels."""
        return self.whole.accuracy

    @property
    def boundary(self) -> BoundaryAgreement:
        """Of the borders between classes, in all labelled pixels."""
        return self.whole.boundary

    @property
    def reliability(self) -> Reliability | None:
        """Of the map's confidence in all labelled pixels; None where it has none."""
        return self.whole.reliability

    def table(self) -> str:
        """The measures as text for a terminal."""
        lines = [self.accuracy.table(self.legend, boundary_f_score=self.boundary.f_score)]
        lines.append(
            f"mean boundary F-score {shown(self.boundary.mean_f_score)} within {self.tolerance}"
        )
        if self.reliability is not None:
            error = self.reliability.ece
            lines.append(f"expected calibration error {shown(error)}")
        if self.regions:
            lines += ["", aligned([_REGION_HEAD, *map(_region_line, self.regions)])]
        return "\n".join(lines)


_REGION_HEAD = ("region", "overall", "mean IoU", "boundary F", "pixels")


def _region_line(region: RegionAssessment) -> tuple[str, ...]:
    accuracy = region.accuracy
    values = (accuracy.overall, accuracy.mean_iou, region.boundary.mean_f_score)
    return (region.name, *map(shown, values), f"{accuracy.pixels:,}")
