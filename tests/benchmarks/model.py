"""What a case and a bound are. No processes, no figures, no printing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: System -> figure -> one value per run.
Found = Mapping[str, Mapping[str, Sequence[float]]]

#: What a figure may count, and how it is written.
UNITS = ("s", "bytes", "count")


@dataclass(frozen=True)
class Bound:
    """A target.

    A figure of ours, divided by one of another system, or as it is, is at most a limit. Lower is
    always better.

    Attributes:
        text: the target in words, as issue 5 has it.
        at_most: the limit.
        figure: which figure of ours.
        of: the systems to divide by: the best of those that were measured; none: the figure itself
            is judged.
        of_figure: which figure of theirs; None: the same.
        system: whose figure is judged.
        stretch: the limit that would be even better, or None.
        speedup: write the ratio as "so many times faster".
    """

    text: str
    at_most: float
    figure: str = "time"
    of: tuple[str, ...] = ()
    of_figure: str | None = None
    system: str = "ours"
    stretch: float | None = None
    speedup: bool = False

    def value(self, found: Found) -> float | None:
        """Return what is to be compared with ``at_most``.

        None if something that it needs was not measured.
        """
        own = _median(found, self.system, self.figure)
        if own is None or not self.of:
            return own
        others = [
            value
            for name in self.of
            if (value := _median(found, name, self.of_figure or self.figure)) is not None
        ]
        return own / min(others) if others and min(others) > 0 else None


def _median(found: Found, system: str, figure: str) -> float | None:
    values = found.get(system, {}).get(figure)
    return statistics.median(values) if values else None


def faster(
    times: float, *of: str, text: str = "", figure: str = "time", stretch: float | None = None
) -> Bound:
    """Return the bound "so many times faster than the best of these"."""
    return Bound(
        text or f"{times:g}x faster than {' and '.join(of)}", 1 / times, figure, of,
        stretch=None if stretch is None else 1 / stretch, speedup=True
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Something that is measured.

    Attributes:
        name: for ``--cases``.
        title: what is measured, in words, for the report.
        measure: (pool, count) -> figure -> value. The pool is an open one of ``systems.py`` with
            ``workers`` workers; it is the ``System`` itself, which the case opens as it likes, if
            ``workers`` is 0.
        figures: figure -> unit; the first is the one that is compared.
        count, quick: how many of whatever is counted, in a real run and in the one that only proves
            that the program runs.
        workers: see ``measure``.
        ability: what a system must be able to do ("call", "submit", "many", "map", "futures",
            "start"); see ``systems.py``.
        systems: the ones that the case is about; None: all that have the ability.
        others: name -> (count) -> figures: floors, and ways that are no system of their own;
            measured in a process of its own, in turn with the systems, and not left out by
            ``--systems``.
        pinned: all processes of a system share one core.
        repeats: runs of each system, after one that does not count.
        limit: seconds that one run may take.
        fresh: every run is in a new process, warmed up with the quick count: memory that an earlier
            run has freed must not hide what is used.
        bounds: the targets.
        note: what a reader has to know to read the figures.
    """

    name: str
    title: str
    measure: Callable[[Any, int], dict[str, float]]
    count: int
    quick: int
    figures: Mapping[str, str] = field(default_factory=lambda: {"time": "s"})
    workers: int = 2
    ability: str = "submit"
    systems: tuple[str, ...] | None = None
    others: Mapping[str, Callable[[int], dict[str, float]]] = field(default_factory=dict)
    pinned: bool = False
    repeats: int = 5
    limit: float = 30.0
    fresh: bool = False
    bounds: tuple[Bound, ...] = ()
    note: str = ""
