"""The work of the demo: two executors at once, and plain ``concurrent.futures`` calls between them.

The functions live in files that only the environments can import; they are named by path. This
program has neither numpy nor scikit-image nor scikit-learn: it passes on what one environment
returned to the other.
"""

from __future__ import annotations

from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetlands_executor import CondaEnvExecutor, Task
from wetlands_executor.demo import recipes
from wetlands_executor.observe import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wetlands_executor.demo.environments import MadeEnvironment

_WORK = Path(__file__).parent / "work"
SEGMENT = f"{_WORK / 'segment.py'}:segment"
MEASURE = f"{_WORK / 'measure.py'}:measure"
CLUSTER = f"{_WORK / 'measure.py'}:cluster"
PANEL = f"{_WORK / 'draw.py'}:panel"
SHEET = f"{_WORK / 'draw.py'}:sheet"
# Each worker is one lane of the parallel work; a library's own threads on top would only compete
# for the same cores.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(slots=True)
class Run:
    """One task that was done.

    Attributes:
        step: ``segment``, ``measure``, ``cluster`` or ``draw``.
        what: which picture or setting.
        role: of the environment it ran in.
        result: what came of it, in a few words.
        where: what ``work/whereabouts.py`` told from inside the worker.
        taken: when the worker took it (seconds since the epoch); before the function begins, the
            worker imports what the file needs.
        worker: number of the worker within its environment, from 1 in the order of their first
            tasks.
    """

    step: str
    what: str
    role: str
    result: str
    where: dict[str, Any]
    taken: float
    worker: int = 0

    def number(self, worker: int) -> None:
        """Note which worker has done it."""
        self.worker = worker

    @property
    def seconds(self) -> float:
        """How long the function took."""
        return float(self.where["finished"]) - float(self.where["started"])


@dataclass(slots=True)
class Outcome:
    """What the demo found.

    Attributes:
        png: the picture, as a file's content.
        cluster: the kinds, as ``work/measure.py`` returns them.
        objects: number of objects per picture's title.
        runs: every task, in the order of their starts.
    """

    png: bytes
    cluster: dict[str, Any]
    objects: dict[str, int]
    runs: list[Run] = field(default_factory=list)


class Pipeline:
    """One pass over all pictures."""

    def __init__(self, older: CondaEnvExecutor, newer: CondaEnvExecutor) -> None:
        self._older = older
        self._newer = newer
        self._runs: list[Run] = []
        self._pictures = [recipe for row in recipes.ROWS for recipe in row]
        #: Number of the tasks in each environment.
        self.of_older = sum(len(recipe.sweep) for recipe in self._pictures)
        self.of_newer = 2 * len(self._pictures) + len(recipes.KINDS_TRIED) + 1

    def run(self, caption: Callable[[Outcome], dict[str, Any]]) -> Outcome:
        """Do everything.

        Args:
            caption: makes the sheet's ``title``, ``subtitle``, ``footer`` and ``lanes`` from what
                is known before it is drawn.
        """
        found, tables = self._segment_and_measure()
        cluster = self._cluster([tables[recipe.title] for recipe in self._pictures])
        rows = self._panels(found, cluster)
        objects = {recipe.title: int(found[recipe.title]["objects"]) for recipe in self._pictures}
        outcome = Outcome(b"", cluster, objects, number_workers(self._runs))
        plan = {"rows": rows, "cluster": cluster, **caption(outcome)}
        sheet: Task[dict[str, Any]] = self._newer.submit(SHEET, plan)
        png = sheet.result()["png"]
        self._record("draw", "the sheet", "newer", sheet, f"{len(png) / 1e6:.1f} MB")
        return Outcome(png, cluster, objects, number_workers(self._runs))

    def _segment_and_measure(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Try every setting on every picture in the older environment.

        Measure each picture's best in the newer one.

        Neither waits for the other: a picture is measured as soon as its own settings have been
        tried.
        """
        sweep: dict[Future[Any], tuple[recipes.Recipe, float]] = {
            self._older.submit(SEGMENT, settings): (recipe, settings["sigma"])
            for recipe in self._pictures
            for settings in recipe.settings()
        }
        left = {recipe.title: len(recipe.sweep) for recipe in self._pictures}
        best: dict[str, dict[str, Any]] = {}
        measures: dict[Future[Any], str] = {}
        for future in as_completed(sweep):
            recipe, sigma = sweep[future]
            result = future.result()
            told = f"{result['objects']} objects, edge score {result['score']:.2f}"
            self._record("segment", f"{recipe.title}, smoothing {sigma:g}", "older", future, told)
            if result["score"] > best.get(recipe.title, {"score": -1.0})["score"]:
                best[recipe.title] = result
            left[recipe.title] -= 1
            if left[recipe.title] == 0:
                measures[self._newer.submit(MEASURE, best[recipe.title])] = recipe.title
        tables = {}
        for future in as_completed(measures):
            title = measures[future]
            tables[title] = future.result()["rows"]
            self._record(
                "measure", title, "newer", future, f"{len(tables[title])} objects, 4 features each"
            )
        return best, tables

    def _cluster(self, tables: list[Any]) -> dict[str, Any]:
        """Sort all objects into kinds, for several numbers of kinds, and keep the most distinct."""
        tried: dict[Future[Any], int] = {
            self._newer.submit(CLUSTER, tables, kinds): kinds for kinds in recipes.KINDS_TRIED
        }
        for future in as_completed(tried):
            result = future.result()
            self._record(
                "cluster",
                f"{tried[future]} kinds",
                "newer",
                future,
                f"silhouette {result['score']:.3f}",
            )
        best: dict[str, Any] = max(
            (future.result() for future in tried), key=lambda result: result["score"]
        )
        return best

    def _panels(self, found: dict[str, Any], cluster: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Draw one panel per picture, in parallel."""
        kinds = dict(
            zip((recipe.title for recipe in self._pictures), cluster["kinds"], strict=True)
        )
        sizes = [recipes.panel_sizes(row) for row in recipes.ROWS]
        drawn: dict[str, Future[Any]] = {
            recipe.title: self._newer.submit(PANEL, found[recipe.title], kinds[recipe.title], *size)
            for row, row_sizes in zip(recipes.ROWS, sizes, strict=True)
            for recipe, size in zip(row, row_sizes, strict=True)
        }
        titles = {future: title for title, future in drawn.items()}
        for future in as_completed(titles):
            self._record(
                "draw",
                titles[future],
                "newer",
                future,
                "{width} x {height} pixels".format(**future.result()),
            )
        return [
            [
                {
                    **drawn[recipe.title].result(),
                    "title": recipe.title,
                    "note": self._note(recipe, found),
                }
                for recipe in row
            ]
            for row in recipes.ROWS
        ]

    def _note(self, recipe: recipes.Recipe, found: dict[str, Any]) -> str:
        """Caption one panel."""
        return f"{found[recipe.title]['objects']} objects, best of {len(recipe.sweep)} settings"

    def _record(self, step: str, what: str, role: str, future: Future[Any], result: str) -> None:
        """Remember a finished task."""
        where = future.result()["where"]
        taken = future.started_at if isinstance(future, Task) else None
        self._runs.append(
            Run(step, what, role, result, where, min(taken or where["started"], where["started"]))
        )


def number_workers(runs: Iterable[Run]) -> list[Run]:
    """Sort tasks by their starts and number the workers of each environment in that order."""
    ordered = sorted(runs, key=lambda run: float(run.where["started"]))
    seen: dict[str, list[int]] = {}
    for run in ordered:
        pids = seen.setdefault(run.role, [])
        pid = int(run.where["pid"])
        if pid not in pids:
            pids.append(pid)
        run.number(pids.index(pid) + 1)
    return ordered


def run(
    older: MadeEnvironment,
    newer: MadeEnvironment,
    workers: int,
    caption: Callable[[Outcome], dict[str, Any]],
) -> Outcome:
    """Start the two executors and do the work.

    Args:
        older: the environment with scikit-image.
        newer: the environment with scikit-learn and Pillow.
        workers: processes in each.
        caption: see ``Pipeline.run``.
    """
    with (
        CondaEnvExecutor(older.prefix, max_workers=workers, worker_env=_ONE_THREAD) as first,
        CondaEnvExecutor(newer.prefix, max_workers=workers, worker_env=_ONE_THREAD) as second,
    ):
        pipeline = Pipeline(first, second)
        try:
            with (
                progress(first, description="older", total=pipeline.of_older, leave=True),
                progress(second, description="newer", total=pipeline.of_newer, leave=True),
            ):
                return pipeline.run(caption)
        except KeyboardInterrupt:
            # Leaving the blocks would first let the running tasks come to an end; nothing here is
            # worth the wait.
            first.kill_workers()
            second.kill_workers()
            raise
