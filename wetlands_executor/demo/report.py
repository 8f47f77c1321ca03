"""What the demo leaves: the table of what ran where, a summary, and the words on the picture."""

from __future__ import annotations

import csv
import io
import json
import platform
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from wetlands_executor import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from wetlands_executor.demo.environments import MadeEnvironment
    from wetlands_executor.demo.pipeline import Outcome, Run

_COLUMNS = (
    "step",
    "what",
    "environment",
    "python",
    "numpy",
    "worker",
    "pid",
    "start (s)",
    "time (s)",
    "result",
)
# seconds between taking a task and beginning it, from which on the picture shows them as an import
_WORTH_SHOWING = 0.1
_RIGHT = {"worker", "pid", "start (s)", "time (s)"}


def write(
    folder: Path,
    outcome: Outcome,
    environments: tuple[MadeEnvironment, MadeEnvironment],
    seconds: float,
) -> list[Path]:
    """Write ``picture.png``, ``table.txt``, ``table.csv`` and ``summary.json``.

    Returns their paths.
    """
    rows = _rows(outcome.runs)
    table = f"{as_text(outcome.runs)}\n\n{environment_lines(outcome, environments)}\n"
    contents = {
        "picture.png": outcome.png,
        "table.txt": table.encode(),
        "table.csv": _as_csv(rows).encode(),
        "summary.json": (
            json.dumps(_summary(outcome, environments, seconds), indent=2) + "\n"
        ).encode(),
    }
    paths = []
    for name, content in contents.items():
        path = folder / name
        draft = folder / f".{name}.part"
        draft.write_bytes(content)
        draft.replace(path)  # a reader never sees half a file
        paths.append(path)
    return paths


def as_text(runs: list[Run]) -> str:
    """Lay the table out for a terminal."""
    rows = [list(_COLUMNS), *_rows(runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            _aligned(cell, width, name)
            for cell, width, name in zip(row, widths, _COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    )


def environment_lines(
    outcome: Outcome, environments: tuple[MadeEnvironment, MadeEnvironment]
) -> str:
    """Describe what each environment is and what this program is."""
    lines = [f"{_environment_line(outcome, made)}\n      {made.prefix}" for made in environments]
    return "\n".join([*lines, this_program()])


def caption(outcome: Outcome) -> dict[str, Any]:
    """Make the words and the timeline of the sheet."""
    older, newer = (_packages(outcome, role) for role in ("older", "newer"))
    lanes = sorted({(run.role != "older", run.worker) for run in outcome.runs})
    pids = {(run.role != "older", run.worker): run.where["pid"] for run in outcome.runs}
    return {
        "title": f"{sum(outcome.objects.values()):,} objects in six pictures, by two environments "
        f"that cannot be one",
        "subtitle": f"Found by scikit-image {older['scikit-image']} on numpy {older['numpy']}, "
        f"sorted by scikit-learn "
        f"{newer['scikit-learn']} on numpy {newer['numpy']}, from one program that needs none of "
        f"them",
        "footer": [
            *(
                (step, _role_line(outcome, role).partition(" (")[0])
                for step, role in (("segment", "older"), ("measure", "newer"))
            ),
            ("", this_program()),
        ],
        "lanes": [
            {"title": f"{'newer' if lane[0] else 'older'} {lane[1]}", "note": f"pid {pids[lane]}"}
            for lane in lanes
        ],
        "runs": [
            {
                "step": step,
                "lane": lanes.index((run.role != "older", run.worker)),
                "started": started,
                "finished": finished,
            }
            for run in outcome.runs
            for step, started, finished in (
                ("import", run.taken, run.where["started"]),
                (run.step, run.where["started"], run.where["finished"]),
            )
            if step != "import" or finished - started > _WORTH_SHOWING
        ],
    }


def this_program() -> str:
    """Describe what the program is that sent the work."""
    numpy = "with numpy installed but not used" if find_spec("numpy") else "without numpy"
    return (
        f"This program: Python {platform.python_version()}, wetlands-executor {__version__}, "
        f"{numpy}"
    )


def _aligned(cell: str, width: int, column: str) -> str:
    return cell.rjust(width) if column in _RIGHT else cell.ljust(width)


def _rows(runs: list[Run]) -> list[list[str]]:
    """Make one row of text per task."""
    first = min(float(run.where["started"]) for run in runs)
    return [
        [
            run.step,
            run.what,
            run.role,
            str(run.where["python"]),
            str(run.where["packages"]["numpy"]),
            str(run.worker),
            str(run.where["pid"]),
            f"{float(run.where['started']) - first:.2f}",
            f"{run.seconds:.2f}",
            run.result,
        ]
        for run in runs
    ]


def _as_csv(rows: list[list[str]]) -> str:
    """Write the table with commas."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    return buffer.getvalue()


def _of_role(outcome: Outcome, role: str) -> list[Run]:
    return [run for run in outcome.runs if run.role == role]


def _packages(outcome: Outcome, role: str) -> dict[str, str]:
    packages: dict[str, str] = _of_role(outcome, role)[0].where["packages"]
    return packages


def _role_line(outcome: Outcome, role: str) -> str:
    """Describe an environment's versions and its share of the work in one line."""
    runs = _of_role(outcome, role)
    packages = ", ".join(f"{name} {version}" for name, version in _packages(outcome, role).items())
    workers = len({run.worker for run in runs})
    count = f"{workers} worker{'s' if workers > 1 else ''}, {len(runs)} tasks"
    return f"The {role} environment: Python {runs[0].where['python']}, {packages} ({count})"


def _environment_line(outcome: Outcome, made: MadeEnvironment) -> str:
    """Describe an environment's versions and what was asked for."""
    return f"{_role_line(outcome, made.role)}\n      asked for: {', '.join(made.requirements)}"


def _summary(
    outcome: Outcome, environments: tuple[MadeEnvironment, MadeEnvironment], seconds: float
) -> dict[str, Any]:
    """Collect the facts of this run for a program to read."""
    return {
        "objects": sum(outcome.objects.values()),
        "pictures": outcome.objects,
        "kinds": dict(zip(outcome.cluster["names"], outcome.cluster["sizes"], strict=True)),
        "silhouette": round(float(outcome.cluster["score"]), 4),
        "tasks": len(outcome.runs),
        "seconds": round(seconds, 2),
        "host": {
            "python": platform.python_version(),
            "version": __version__,
            "numpy": find_spec("numpy") is not None,
        },
        "environments": {
            made.role: {
                "prefix": str(made.prefix),
                "requirements": list(made.requirements),
                "made_in_seconds": round(made.seconds, 1) or None,
                "python": _of_role(outcome, made.role)[0].where["python"],
                "packages": _packages(outcome, made.role),
                "pids": sorted({int(run.where["pid"]) for run in _of_role(outcome, made.role)}),
            }
            for made in environments
        },
    }
