"""The lines with which a process that is a task reports: one JSON object each. Pure.

What a *command* writes to its stdout behind ``PREFIX``, and what ``python -m
wetlands_executor.tasks run`` writes to a descriptor.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

#: As in ``worker/task_controller.py``, which writes such lines.
PREFIX = "@task "


class Report(NamedTuple):
    """What a line says; None is nothing.

    Attributes:
        progress: from 0 to 1.
        message: what is being done.
        output: replaces the last one.
        status: ``"canceled"``: the process stops as it was asked to.
    """

    progress: float | None = None
    message: str | None = None
    output: dict[str, Any] | None = None
    status: str | None = None


def parse(line: str) -> Report | None:
    """Return what a line of a command's stdout reports; None if it is an ordinary line.

    Raises:
        ValueError: it begins as a report and is none; the message says why.
    """
    if not line.startswith(PREFIX):
        return None
    try:
        found = json.loads(line[len(PREFIX) :])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("not an object: write {...}")
    progress, message = found.get("progress"), found.get("message")
    output, status = found.get("output"), found.get("status")
    if progress is not None and (
        isinstance(progress, bool)
        or not isinstance(progress, (int, float))
        # Python reads NaN, Infinity and whole numbers that are no floats.
        or not abs(progress) <= sys.float_info.max
    ):
        raise ValueError(f"progress must be a number from 0 to 1, not {str(progress)[:80]}")
    if output is not None and not isinstance(output, dict):
        raise ValueError(f"output must be an object, not {output!r}")
    return Report(
        None if progress is None else float(progress),
        None if message is None else str(message),
        output,
        None if status is None else str(status),
    )


def state_line(state: dict[str, Any]) -> str:
    """Return the line of a state; what JSON does not know is written as its ``repr``."""
    return json.dumps(state, default=repr) + "\n"
