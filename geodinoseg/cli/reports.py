"""Plans, facts and results of many scenes, as text or as JSON events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geodinoseg.cli.bar import duration
from geodinoseg.cli.events import event, report_done
from geodinoseg.cli.process import echo, printable
from geodinoseg.errors import SceneError


class ScenesFailedError(SceneError):
    """Some of many scenes failed; holds the outputs and result for the last JSON event."""

    def __init__(self, message: str, *, outputs: Sequence[str], result: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = {"outputs": list(outputs), "result": result}


def report_facts(facts: dict[str, Any], *, indent: int = 0) -> None:
    """Print facts, one per line."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        echo(f"{'':{indent}}{name:{width}}  {_formatted(value)}")


def report_training_plan(facts: dict[str, Any], *, json_: bool) -> None:
    """Print the plan of a training: a line per fact, or the last JSON event."""
    if json_:
        keys = {name: re.sub(r"\W+", "_", name) for name in facts}
        report_done(json_, [], [], result={keys[name]: value for name, value in facts.items()})
        return
    seconds, limit = facts.pop("seconds"), facts.pop("time limit, s")
    report_facts({**facts, "time": _training_time(seconds, limit)})


def _training_time(seconds: float | None, limit_s: float | None) -> str:
    if seconds is None:
        return "unknown: the memory of the device is too small for a trial of the network"
    if limit_s is not None and seconds >= limit_s:
        return f"about {duration(limit_s)}, the limit of --minutes"
    return f"about {duration(seconds)} for the network on this device, by a trial on a few crops"


def report_plan(plan: Any, *, json_: bool) -> None:
    """Print the plan of one scene: lines of text, or the last JSON event."""
    report_done(json_, [], _plan_lines(plan), result=_plan_facts(plan))


def report_plan_of_many(plan: Any, *, json_: bool) -> None:
    """Print the plan of one scene of many: lines of text, or a JSON event."""
    if json_:
        event("plan", **_plan_facts(plan))
        return
    for line in _plan_lines(plan):
        echo(line)


def report_failed_plan(scene: str, error: Exception, *, json_: bool) -> None:
    """Print why a scene of a dry run cannot be segmented."""
    if json_:
        _scene_event(scene, "failed", error=str(error))
    else:
        echo(f"failed: {scene}: {error}")


def report_scene(result: Any, *, json_: bool) -> None:
    """Print the result of one scene: a line, or a JSON event."""
    if json_:
        _scene_event(result.scene, result.status, outputs=result.outputs, error=result.error)
        return
    outputs = ", ".join(str(path) for path in result.outputs)
    detail = f"{result.scene}: {result.error}" if result.error else outputs
    echo(f"{result.status}: {detail}")


def report_summary(results: Sequence[Any], *, json_: bool) -> None:
    """Print the numbers of scenes; ScenesFailedError if some failed."""
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("done", "skipped", "failed")
    }
    failed = [result.scene for result in results if result.status == "failed"]
    outputs = [path for result in results for path in result.outputs]
    found = {"scenes": counts, "failed": failed}
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    if not failed:
        report_done(json_, outputs, [text], result=found)
        return
    if not json_:
        echo(text)
    raise ScenesFailedError(
        f"{len(failed)} of {len(results)} scenes failed: {', '.join(failed)}. Run the same "
        f"command again to retry them; finished maps are kept.",
        outputs=[str(path) for path in outputs],
        result=found,
    )


def report_totals(
    scenes: int, seconds: float, output_bytes: int, *, failed: Sequence[str], json_: bool
) -> None:
    """Print the totals of a dry run over many scenes; ScenesFailedError if some failed."""
    found = {
        "scenes": scenes,
        "seconds": round(seconds, 1),
        "output_bytes": output_bytes,
        "failed": list(failed),
    }
    lines = [
        f"total     {scenes} scenes, about {duration(seconds)} for the network on this device",
        f"          {output_bytes / 1e6:,.0f} MB of class rasters before compression",
    ]
    if not failed:
        report_done(json_, [], lines, result=found)
        return
    for line in [] if json_ else lines:
        echo(line)
    raise ScenesFailedError(
        f"{len(failed)} of {scenes + len(failed)} scenes cannot be segmented: {', '.join(failed)}.",
        outputs=[],
        result=found,
    )


def _scene_event(
    scene: str, status: str, *, outputs: Sequence[Any] = (), error: str | None = None
) -> None:
    event(
        "scene",
        scene=scene,
        status=status,
        outputs=[str(path) for path in outputs],
        error=error and printable(error),
    )


def _plan_lines(plan: Any) -> list[str]:
    about = duration(plan.seconds)
    return [*plan.lines(), f"time      about {about} for the network on this device"]


def _plan_facts(plan: Any) -> dict[str, Any]:
    from geodinoseg.redaction import redact_path
    from geodinoseg.segmentation.plan import plan_facts

    return {
        "scene": redact_path(plan.scene.path),
        "seconds": round(plan.seconds, 1),
        "parts": len(plan.chunks),
        "memory_bytes": plan.memory_bytes,
        "output_bytes": plan.output_bytes,
        **plan_facts(plan),
    }


def _formatted(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_formatted(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_formatted, value))
    return "none" if value is None else str(value)
