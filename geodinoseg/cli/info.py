"""The command `info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.console import report_facts
from geodinoseg.cli.options import allow_external_option, json_option


@click.command()
@click.argument("path", metavar="SCENE|MODEL|CLASS_RASTER")
@allow_external_option
@json_option
def info(path: str, *, allow_external: bool, json_: bool) -> None:
    """Say what a scene, a model folder or a class raster is.

    \b
    Example:
      geodinoseg info ortho.tif
      geodinoseg info farmland.model
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.cli.descriptions import describe

    facts: dict[str, Any] = describe(
        Path(path) if Path(path).is_dir() else path, allow_external=allow_external
    )
    report_facts(facts, json_=json_)
