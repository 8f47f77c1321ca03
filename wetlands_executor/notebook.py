"""What a notebook shows of a task and of an executor.

Small pieces of HTML that need nothing around them.

Owns the looks only; reads the public properties at the moment of the call, from any thread. Colours
are given for marks and bars alone, in tones that can be seen on light and dark pages; text has the
page's own colour. Everything that comes from a user is escaped.
"""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Marks and bars, by the value of a task's status or a worker's state.
_COLOURS = {
    "pending": "#8a8f98",
    "running": "#2f81f7",
    "completed": "#2da44e",
    "failed": "#e5534b",
    "canceled": "#c69026",
    "starting": "#8a8f98",
    "idle": "#8a8f98",
    "busy": "#2f81f7",
    "stopping": "#c69026",
}
_GREY = "rgba(128,128,128,.3)"
_BOX = (
    f"display:inline-block;min-width:22em;max-width:60em;padding:.5em .8em;border:1px solid "
    f"{_GREY};border-radius:6px;line-height:1.5"
)
_CELL = (
    f"text-align:left;padding:.1em .8em .1em 0;border:0;border-bottom:1px solid "
    f"{_GREY};white-space:nowrap"
)

_WORKER_HEADS = ("worker", "process", "state", "task", "done", "waiting", "memory", "CPU", "since")

#: Characters of a text of the user's, rows of a table.
_LONGEST, _ROWS = 300, 20


class ShownTask(Protocol):
    """A task, by those of its public properties that are shown."""

    @property
    def name(self) -> str: ...  # noqa: D102 - as the public name says
    @property
    def status(self) -> Any: ...  # noqa: D102 - as the public name says
    @property
    def progress(self) -> float | None: ...  # noqa: D102 - as the public name says
    @property
    def message(self) -> str | None: ...  # noqa: D102 - as the public name says
    @property
    def current(self) -> float | None: ...  # noqa: D102 - as the public name says
    @property
    def maximum(self) -> float | None: ...  # noqa: D102 - as the public name says
    @property
    def outputs(self) -> dict[Any, Any]: ...  # noqa: D102 - as the public name says
    @property
    def error(self) -> str | None: ...  # noqa: D102 - as the public name says
    @property
    def traceback(self) -> list[str] | None: ...  # noqa: D102 - as the public name says
    @property
    def created_at(self) -> float: ...  # noqa: D102 - as the public name says
    @property
    def started_at(self) -> float | None: ...  # noqa: D102 - as the public name says
    @property
    def finished_at(self) -> float | None: ...  # noqa: D102 - as the public name says
    @property
    def worker_pid(self) -> int | None: ...  # noqa: D102 - as the public name says
    @property
    def attempt(self) -> int: ...  # noqa: D102 - as the public name says
    @property
    def cancel_requested(self) -> bool: ...  # noqa: D102 - as the public name says


class ShownWorker(Protocol):
    """A worker, as ``workers()`` of an executor returns it."""

    @property
    def index(self) -> int: ...  # noqa: D102 - as the public name says
    @property
    def pid(self) -> int: ...  # noqa: D102 - as the public name says
    @property
    def state(self) -> str: ...  # noqa: D102 - as the public name says
    @property
    def task(self) -> str | None: ...  # noqa: D102 - as the public name says
    @property
    def tasks_done(self) -> int: ...  # noqa: D102 - as the public name says
    @property
    def queue_depth(self) -> int: ...  # noqa: D102 - as the public name says
    @property
    def rss(self) -> int | None: ...  # noqa: D102 - as the public name says
    @property
    def cpu_percent(self) -> float | None: ...  # noqa: D102 - as the public name says
    @property
    def started_at(self) -> float | None: ...  # noqa: D102 - as the public name says


class ShownExecutor(Protocol):
    """An executor, by those of its public names that are shown."""

    @property
    def environment(self) -> Any: ...  # noqa: D102 - as the public name says
    @property
    def max_workers(self) -> int: ...  # noqa: D102 - as the public name says

    def get_progress(self) -> dict[str, Any]: ...  # noqa: D102 - as above

    def workers(self) -> Sequence[ShownWorker]: ...  # noqa: D102 - as above


def task_html(task: ShownTask) -> str:
    """Return the picture of a task: name, state, progress, durations, and its error if it has one.

    Args:
        task: any task; a bare one, which no executor knows, too.
    """
    status = task.status
    lines = [
        (
            f"<div>{_mark(status.value)} <b>{_text(task.name or 'task')}</b> &middot; "
            f"{status.value}{_attempt(task)}</div>"
        )
    ]
    fraction = 1.0 if status.value == "completed" else task.progress
    if fraction is not None or status.value == "running":
        lines.append(_bar(fraction, _COLOURS[status.value]))
    facts = [*_how_far(task), *_durations(task)]
    if task.worker_pid is not None:
        facts.append(f"process {task.worker_pid}")
    if task.cancel_requested and not status.is_finished():
        facts.append("asked to stop")
    lines.append(f'<div style="opacity:.75">{" &middot; ".join(facts)}</div>')
    if task.outputs:
        lines.append(
            f'<div style="opacity:.75">outputs: {_text(", ".join(map(str, task.outputs)))}</div>'
        )
    if task.error is not None:
        lines.append(f"<div>{_text(task.error)}</div>")
        lines.append(_details("traceback in the worker", "\n".join(task.traceback or ())))
    return _box(lines)


def executor_html(executor: ShownExecutor) -> str:
    """Return the picture of an executor: its environment, counts, workers, and the tasks that run.

    Args:
        executor: any executor; one that was shut down has no workers any more.
    """
    picture = executor.get_progress()
    workers = executor.workers()
    environment = executor.environment
    name = environment.name or str(environment.prefix)
    counts = [
        f"{picture[key]} {key}"
        for key in ("running", "queued", "completed", "failed", "canceled")
        if picture[key] or key != "canceled"
    ]
    lines = [
        (
            f"<div><b>{escape(type(executor).__name__)}</b> of <b>{_text(name)}</b> &middot; "
            f"{len(workers)} of {executor.max_workers} workers</div>"
        ),
        f'<div style="opacity:.75">{_text(str(environment.python))}</div>',
        f"<div>{picture['total']} tasks: {', '.join(counts)}</div>",
    ]
    if picture["total"]:
        lines.append(_shares(picture))
    if workers:
        lines.append(_table(_WORKER_HEADS, map(_worker_row, workers), len(workers)))
    running = [task for task in picture["tasks"] if task["state"] == "running"]
    if running:
        lines.append(
            _table(("running", "progress", "for"), map(_running_row, running), len(running))
        )
    return _box(lines)


def _how_far(task: ShownTask) -> list[str]:
    """Say what the function has reported."""
    found = []
    if task.message:
        found.append(_text(task.message))
    if task.current is not None:
        found.append(
            f"{task.current:g}" + (f" of {task.maximum:g}" if task.maximum is not None else "")
        )
    return found


def _durations(task: ShownTask) -> list[str]:
    """Say how long the task has waited, and how long it has run."""
    now = time.time()
    started, finished = task.started_at, task.finished_at
    found = [f"waited {_seconds((started or finished or now) - task.created_at)}"]
    if started is not None:
        found.append(
            f"ran {_seconds((finished or now) - started)}"
            if finished
            else f"running for {_seconds(now - started)}"
        )
    return found


def _attempt(task: ShownTask) -> str:
    return f", try {task.attempt}" if task.attempt > 1 else ""


def _worker_row(worker: ShownWorker) -> Sequence[str]:
    return (
        str(worker.index),
        str(worker.pid),
        f"{_mark(worker.state)} {escape(worker.state)}",
        _text(worker.task or "", 60),
        str(worker.tasks_done),
        str(worker.queue_depth),
        "" if worker.rss is None else _bytes(worker.rss),
        "" if worker.cpu_percent is None else f"{worker.cpu_percent:.0f}%",
        "" if worker.started_at is None else _seconds(time.time() - worker.started_at),
    )


def _running_row(task: dict[str, Any]) -> Sequence[str]:
    percent, duration = task["progress_pct"], task["execution_duration_ms"]
    return (
        _text(task["name"], 60),
        "" if percent is None else _bar(percent / 100, _COLOURS["running"]),
        "" if duration is None else _seconds(duration / 1000),
    )


def _box(lines: Iterable[str]) -> str:
    return f'<div style="{_BOX}">{"".join(lines)}</div>'


def _mark(state: str) -> str:
    colour = _COLOURS.get(state, _GREY)
    style = f"display:inline-block;width:.7em;height:.7em;border-radius:50%;background:{colour}"
    return f'<span style="{style}"></span>'


def _bar(fraction: float | None, colour: str) -> str:
    """Return a bar; striped if it is unknown how far it is."""
    width = 100 if fraction is None else round(100 * min(max(fraction, 0.0), 1.0), 1)
    fill = (
        colour
        if fraction is not None
        else f"repeating-linear-gradient(45deg,{colour} 0 6px,transparent 6px 12px)"
    )
    outer = (
        f"height:.6em;min-width:10em;margin:.25em "
        f"0;border-radius:.3em;overflow:hidden;background:{_GREY}"
    )
    return (
        f'<div style="{outer}"><div '
        f'style="width:{width}%;height:100%;background:{fill}"></div></div>'
    )


def _shares(picture: dict[str, Any]) -> str:
    """Return one bar in parts: what has become of all tasks."""
    parts = []
    for state in ("completed", "failed", "canceled", "running"):
        width = round(100 * picture[state] / picture["total"], 1)
        parts.append(
            f'<div style="width:{width}%;background:{_COLOURS[state]}" '
            f'title="{picture[state]} {state}"></div>'
        )
    outer = (
        f"display:flex;height:.6em;margin:.25em "
        f"0;border-radius:.3em;overflow:hidden;background:{_GREY}"
    )
    return f'<div style="{outer}">{"".join(parts)}</div>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], count: int) -> str:
    """Return a table of the first rows; cells are HTML already."""
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in heads)
    shown = [row for _, row in zip(range(_ROWS), rows, strict=False)]
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>"
        for row in shown
    )
    more = (
        f'<div style="opacity:.75">and {count - len(shown)} more</div>'
        if count > len(shown)
        else ""
    )
    return (
        f'<table style="border-collapse:collapse;margin:.4em 0"><tr>{head}</tr>{body}</table>{more}'
    )


def _details(title: str, text: str) -> str:
    """Return a text that opens when it is clicked."""
    pre = f"overflow:auto;max-height:20em;background:{_GREY};padding:.5em"
    return (
        f"<details><summary>{title}</summary><pre "
        f'style="{pre}">{escape(text[-10_000:])}</pre></details>'
    )


def _text(text: str, longest: int = _LONGEST) -> str:
    return escape(text if len(text) <= longest else text[: longest - 1] + "…")


def _seconds(seconds: float) -> str:
    """Write a duration: ``12 ms``, ``3.4 s``, ``2 min 05 s``, ``1 h 02 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _bytes(count: int) -> str:
    """Write an amount of memory."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
