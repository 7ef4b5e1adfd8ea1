"""What a person, or a program that asked for JSON, reads of many scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geodinoseg.cli.console import event, spoken
from geodinoseg.cli.streams import say
from geodinoseg.errors import SceneError


def report_scene(result: Any, *, json_: bool) -> None:
    """What became of one scene: a line, or a JSON event."""
    if json_:
        event(
            event="scene",
            scene=result.scene,
            status=result.status,
            outputs=[str(path) for path in result.outputs],
            error=result.error,
        )
        return
    told = result.error or ", ".join(str(path) for path in result.outputs)
    say(f"{result.status}: {result.scene}: {told}" if result.error else f"{result.status}: {told}")


def report_unfit(scene: str, error: Exception, *, json_: bool) -> None:
    """Why a scene of a dry run could not be segmented."""
    if json_:
        event(event="scene", scene=scene, status="failed", outputs=[], error=str(error))
        return
    say(f"failed: {scene}: {error}")


def report_summary(results: Sequence[Any], *, json_: bool) -> None:
    """How many were done, skipped and failed.

    Raises:
        SceneError: some failed.
    """
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("done", "skipped", "failed")
    }
    failed = [result.scene for result in results if result.status == "failed"]
    if json_:
        outputs = [str(path) for result in results for path in result.outputs]
        event(event="done", outputs=outputs, failed=failed, scenes=counts)
    else:
        say(", ".join(f"{count} {status}" for status, count in counts.items()))
    if failed:
        raise SceneError(
            f"{len(failed)} of {len(results)} scenes failed: {', '.join(failed)}. Run the same "
            f"command again to try them again; what is done stays."
        )


def report_totals(
    scenes: int, seconds: float, output_bytes: int, *, failed: Sequence[str], json_: bool
) -> None:
    """What a dry run over many scenes adds up to.

    Raises:
        SceneError: some cannot be segmented.
    """
    if json_:
        event(event="total", scenes=scenes, seconds=round(seconds, 1), output_bytes=output_bytes)
    else:
        say(f"in all    {scenes} scenes, about {spoken(seconds)} in the network on this device")
        say(f"          {output_bytes / 1e6:,.0f} MB of class rasters before compression")
    if failed:
        raise SceneError(
            f"{len(failed)} of {scenes + len(failed)} scenes cannot be segmented: "
            f"{', '.join(failed)}."
        )
