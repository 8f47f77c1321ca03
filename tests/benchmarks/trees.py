"""Two checkouts of this library against each other: ``python -m tests.benchmarks.trees OLD NEW``.

Each tree has a process of its own, which stays for all runs of a case; A runs, then B, then A
again. Two processes of one tree differ by up to a tenth (where their memory lies), so that there
are several pairs, one after the other (``--processes``); a tree's figure of a pair is its median.
Printed are the median, the least and the greatest of these, and the ratio of the medians: of wall
clock, and of the processor time that the host spent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def _pin() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})


def round_trip(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure 2,000 round trips of a no-op, every process on one core."""
    from wetlands_executor import CondaEnvExecutor

    _pin()
    with CondaEnvExecutor(max_workers=1) as executor:
        for _ in range(500):
            executor.submit(abs, 1).result()

        def once() -> None:
            for _ in range(2_000):
                executor.submit(abs, 1).result()

        run(once)


def script_function(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure 2,000 round trips of a lambda that is made anew each time, on one core."""
    from wetlands_executor import CondaEnvExecutor

    _pin()
    with CondaEnvExecutor(max_workers=1) as executor:

        def once() -> None:
            for number in range(2_000):
                executor.submit(lambda number=number: number).result()

        once()
        run(once)


def submits(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure 10,000 submits of a no-op and the wait for all, two workers."""
    from concurrent.futures import wait

    from wetlands_executor import CondaEnvExecutor

    with CondaEnvExecutor(max_workers=2) as executor:

        def once() -> None:
            wait([executor.submit(abs, 1) for _ in range(10_000)])

        once()
        run(once)


def mapping(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure map of a no-op over 20,000 numbers, two workers."""
    from wetlands_executor import CondaEnvExecutor

    with CondaEnvExecutor(max_workers=2) as executor:

        def once() -> None:
            for _ in executor.map(abs, range(20_000)):
                pass

        once()
        run(once)


def array(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure an array of 100 MB in and out again, one worker."""
    import numpy as np

    from wetlands_executor import CondaEnvExecutor

    value = np.ones(100_000_000, dtype="u1")
    with CondaEnvExecutor(max_workers=1) as executor:

        def once() -> None:
            executor.submit(np.negative, value).result()

        once()
        run(once)


def start(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure a new executor until its first result, and its end."""
    from wetlands_executor import CondaEnvExecutor

    def once() -> None:
        with CondaEnvExecutor(max_workers=1) as executor:
            executor.submit(abs, 1).result()

    once()
    run(once)


def preloads(run: Callable[[Callable[[], object]], None]) -> None:
    """Measure 16 workers that share a preload of numpy, until each has started, and their end."""
    from wetlands_executor import CondaEnvExecutor

    def once() -> None:
        with CondaEnvExecutor(max_workers=16, preload=["numpy"], share_preload=True) as executor:
            executor.launch()

    once()
    run(once)


CASES = {
    case.__name__: case
    for case in (round_trip, script_function, submits, mapping, array, start, preloads)
}


def _child(case: str) -> None:
    def run(once: Callable[[], object]) -> None:
        print("ready", flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            once()
            figures = [time.perf_counter() - wall, time.process_time() - cpu]
            print(json.dumps(figures), flush=True)

    CASES[case](run)


def _compare(trees: list[Path], case: str, runs: int) -> list[list[tuple[float, float]]]:
    here = Path(__file__).resolve()
    programs = [
        subprocess.Popen(
            [sys.executable, str(here), "--child", case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tree)},
            cwd="/",
        )
        for tree in trees
    ]
    found: list[list[tuple[float, float]]] = [[] for _ in trees]
    for program in programs:
        assert program.stdout is not None
        if program.stdout.readline() != "ready\n":
            raise SystemExit(f"{case} cannot run")
    for _ in range(runs):
        for program, figures in zip(programs, found):
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write("\n")
            program.stdin.flush()
            figures.append(tuple(json.loads(program.stdout.readline())))
    for program in programs:
        program.communicate()
    return found


def main() -> None:
    """Read the command line, measure, and print a line for each case."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.trees", description=__doc__)
    parser.add_argument("trees", nargs="*", type=Path, help="checkouts; the first is the base")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--processes", type=int, default=5, help="pairs, one after the other")
    parser.add_argument("--child", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments.child)
        return
    if len(arguments.trees) < 2:
        parser.error("two checkouts at least")
    for case in arguments.cases:
        medians: list[list[tuple[float, ...]]] = [[] for _ in arguments.trees]
        for _ in range(arguments.processes):
            for tree, figures in zip(medians, _compare(arguments.trees, case, arguments.runs)):
                tree.append(tuple(map(statistics.median, zip(*figures))))
        for place, clock in enumerate(("wall", "cpu")):
            base = statistics.median(figure[place] * 1e3 for figure in medians[0])
            for tree, name in zip(medians, arguments.trees):
                values = [figure[place] * 1e3 for figure in tree]
                middle = statistics.median(values)
                print(
                    f"{case:16} {clock:4} {name.name:12} {middle:9.2f} ms"
                    f" ({min(values):.2f} to {max(values):.2f})  {middle / base:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
