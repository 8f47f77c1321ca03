"""``wetlands-executor demo``: from nothing but Python and a package registry to a picture."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from wetlands_executor.demo.environments import DemoError, RegistryUnreachableError
from wetlands_executor.demo.progress import Progress
from wetlands_executor.errors import WetlandsExecutorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Names the folder where the library keeps the environments that it makes.
VARIABLE = "WETLANDS_EXECUTOR_ENVIRONMENTS"
FAILED, UNREACHABLE, INTERRUPTED = 1, 3, 130


def default_workers() -> int:
    """Give the number of workers per environment: as many as cores, but two to four."""
    return max(2, min(4, os.cpu_count() or 2))


def run_demo(
    out: Path, workers: int, cache_folder: Path | None = None, *, refresh: bool = False
) -> int:
    """Run the demo and report on it.

    Args:
        out: folder for the picture and the tables; made if need be.
        workers: worker processes in each environment.
        cache_folder: where the environments are kept; None is where the library keeps all.
        refresh: make the environments anew.

    Returns:
        The exit code: 0, 1 (failed), 3 (no package registry could be reached) or 130 (interrupted).
    """
    progress = Progress()
    try:
        with _kept_in(cache_folder):
            return _run(out, workers, progress, refresh)
    except KeyboardInterrupt:
        progress.say(
            "interrupted: nothing is left running; run the demo again to go on from the "
            "environments that are complete"
        )
        return INTERRUPTED
    except DemoError as error:
        print(f"wetlands-executor demo: {error}", file=sys.stderr)
        return UNREACHABLE if isinstance(error, RegistryUnreachableError) else FAILED
    except (WetlandsExecutorError, ImportError) as error:
        print(f"wetlands-executor demo: {type(error).__name__}: {error}", file=sys.stderr)
        if error.__cause__ is not None:
            print(error.__cause__, file=sys.stderr)
        print("If an environment is damaged, make both anew with --refresh.", file=sys.stderr)
        return FAILED


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[None]:
    """Have the library keep environments in a folder meanwhile; None is where it keeps all."""
    before = os.environ.get(VARIABLE)
    if folder is not None:
        os.environ[VARIABLE] = str(folder.absolute())
    try:
        yield
    finally:
        if folder is not None:
            if before is None:
                os.environ.pop(VARIABLE, None)
            else:
                os.environ[VARIABLE] = before


def _run(out: Path, workers: int, progress: Progress, refresh: bool) -> int:
    """Do the demo's steps one after another."""
    from wetlands_executor.demo import environments, pipeline, report

    _check_writable(out)
    progress.say("Two environments that no single one could hold:")
    made = environments.prepare(progress, refresh=refresh)
    for environment in made:
        state = "ready" if environment.seconds else "there already"
        progress.say(
            f"  {environment.role}: {', '.join(environment.requirements)} ({state}, "
            f"{environment.prefix})"
        )
    progress.say(f"Working with {workers} workers in each:")
    outcome = pipeline.run(*made, workers, report.caption)
    paths = report.write(out, outcome, made, progress.elapsed)
    print(report.as_text(outcome.runs))
    print()
    print(report.environment_lines(outcome, made))
    print()
    print(
        f"{sum(outcome.objects.values())} objects, {len(outcome.runs)} tasks, "
        f"{progress.elapsed:.1f} s in all. Look at {paths[0]}"
    )
    return 0


def _check_writable(out: Path) -> None:
    """Make the output folder and try to write in it, before anything that takes time."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DemoError(
            f"cannot write in the output folder {out}: {error.strerror}. Choose "
            f"another one with --out"
        ) from error
