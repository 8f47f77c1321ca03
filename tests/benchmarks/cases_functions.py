"""Functions of every kind: of a module, of the script, with what they use, made anew for each call.

A figure is the time of a call whose function does nothing, or the time of one of many calls that
are submitted at once. All kinds are measured in one run, so that what disturbs the machine
disturbs them all. What a system cannot send has no figure.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from . import functions
from .model import Bound, Case, faster

SYSTEMS = ("ours", "ppe-spawn", "ppe-fork", "loky", "joblib")


#: Rounds in which the kinds take turns; seconds of a call that is measured in none.
ROUNDS, SLOW = 10, 0.005
#: Seconds that the calls of one kind may take together: a slower system makes fewer of them.
BURST = 2.0


def _script() -> Any:
    return sys.modules["__main__"]


#: Kind -> (number) -> a call.
KINDS: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "module": lambda number: (functions.nothing,),
    "script": lambda number: (_script().plain,),
    "global": lambda number: (_script().with_global,),
    "table of 1,000": lambda number: (_script().with_table,),
    "calls another": lambda number: (_script().calling,),
    "wraps": lambda number: (_script().wrapped,),
    "lambda anew": lambda number: (_script().closure(number),),
    "lambda over a list anew": lambda number: (_script().closure_over_a_list(number),),
    "partial": lambda number: (functools.partial(_script().plain),),
    "partial with keywords": lambda number: (functools.partial(_script().keywords, value=number),),
    "method of a module's object": lambda number: (functions.Thing(number).method,),
    "method": lambda number: (_script().Thing(number).method,),
    "module's object": lambda number: (functions.take, functions.Thing(number)),
    "object": lambda number: (_script().take, _script().Thing(number)),
}
#: Calls with which the others are compared: with a call without arguments, unless it has one.
_MODULE = "module"
_ALIKE = {"method": "method of a module's object", "object": "module's object"}


def round_trip(pool: Any, count: int) -> dict[str, float]:
    """Seconds of one call of each kind: the least of the medians of several rounds.

    The kinds take turns, so that what disturbs the machine for a while disturbs all of them.
    """
    found: dict[str, float] = {}
    kinds = dict(KINDS)
    for number in range(ROUNDS + 1):
        for kind, make in list(kinds.items()):
            try:
                seconds = _median_of(pool, make, 3 if not number else count // ROUNDS)
            except Exception:  # noqa: BLE001 - what plain pickle cannot do
                del kinds[kind]
                continue
            if number or seconds > SLOW:
                found[kind] = min(found.get(kind, seconds), seconds)
            if seconds > SLOW:  # a library for which one figure has to do
                del kinds[kind]
    return found


def _median_of(pool: Any, make: Callable[[int], tuple[Any, ...]], count: int) -> float:
    times = []
    for number in range(max(count, 3)):
        call = make(number)
        start = time.perf_counter()
        pool.get(pool.submit(*call))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def burst(pool: Any, count: int) -> dict[str, float]:
    """Seconds of one of ``count`` calls that are submitted at once, of each kind.

    Of fewer calls with a system that would need more than ``BURST`` seconds for so many, one after
    the other. A system without ``submit`` (joblib) is given all calls of a kind in its own way.
    """
    found = {}
    for kind, make in KINDS.items():
        try:
            alone = _median_of(pool, make, 3)
            calls = [make(number) for number in range(max(10, min(count, int(BURST / alone))))]
            found[kind] = pool.burst(calls) / len(calls)
        except Exception:  # noqa: BLE001, S112 - as above
            continue
    return found


def objects(pool: Any, count: int) -> dict[str, float]:
    """Seconds of a call with a list of objects of a class of the script."""
    things = [_script().Thing(number) for number in range(count)]
    times = []
    for _ in range(4):
        start = time.perf_counter()
        pool.get(pool.submit(_script().take_all, things))
        times.append(time.perf_counter() - start)
    return {"time": statistics.median(times[1:])}


def _bounds(times: float) -> tuple[Bound, ...]:
    return (
        *(
            Bound(
                f"{kind}: at most 1.3x the same of a module",
                1.3,
                figure=kind,
                of=("ours",),
                of_figure=_ALIKE.get(kind, _MODULE),
            )
            for kind in KINDS
            if kind != _MODULE and kind not in _ALIKE.values()
        ),
        *(
            faster(
                times,
                "ppe-spawn",
                text=f"{times:g}x faster than ProcessPoolExecutor(spawn): {kind}",
                figure=kind,
            )
            for kind in KINDS
        ),
    )


CASES = [
    Case(
        "functions-pinned", "round trip of each kind of function, 1 worker, on one core",
        round_trip, 500, 5,
        figures=dict.fromkeys(KINDS, "s"), ability="call", workers=1, systems=SYSTEMS, pinned=True,
        limit=120, bounds=_bounds(3),
        note="Figures that were published before this case were those of functions of a module.",
    ),
    Case(
        "functions-burst", "3,000 calls of each kind of function at once, 1 worker", burst, 3000,
        10,
        figures=dict.fromkeys(KINDS, "s"), ability="call", workers=1, systems=SYSTEMS, repeats=3,
        limit=300,
        bounds=_bounds(3),
    ),
    Case(
        "functions-objects",
        "a list of 100,000 objects of a class of the script as argument, 1 worker", objects,
        100_000, 100,
        ability="call", workers=1, systems=SYSTEMS, repeats=3, limit=120,
        bounds=(faster(1, "ppe-spawn", "ppe-fork"),),
    ),
]  # fmt: skip
