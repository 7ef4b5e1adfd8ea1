"""Shim."""

from dataclasses import dataclass


@dataclass
class PanelSample:
    pixels: object
    valid: object
    labels: object
    predicted: object
    confidence: object


def reliability_diagram(before, after, output_png):
    open(output_png, "wb").close()


def validation_panel(samples, legend, output_png):
    open(output_png, "wb").close()
