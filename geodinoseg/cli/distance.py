"""A distance on the command line: a number of pixels such as 1.5, or of metres such as 2m."""

from __future__ import annotations

from typing import Any

import click


class Distance(click.ParamType[tuple[str, float]]):
    """A number of pixels such as 1.5, or of metres such as 2m."""

    name = "px|m"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The unit, px or m, and the number."""
        if isinstance(value, tuple):
            return value
        text = str(value).strip()
        unit = next((unit for unit in ("px", "m") if text.endswith(unit)), "")
        try:
            number = float(text.removesuffix(unit))
        except ValueError:
            self.fail(f"{value!r} is no distance such as 1.5 (pixels) or 2m", param, ctx)
        if not 0 <= number < float("inf"):
            self.fail(f"{value!r} is no distance of 0 or more", param, ctx)
        return unit or "px", number
