"""``python -m tests.benchmarks``.

Our executor beside its remote interpreters, in one session, in turn.

Medians and ratios.

Only ratios within one session mean anything, and only if the machine has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import chart, report, runs
from .registry import cases
from .systems import SYSTEMS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--list",
        action="store_true",
        help="list cases and systems, with those that are not installed",
    )
    parser.add_argument(
        "--cases",
        nargs="*",
        metavar="CASE",
        help="default: all but steps (where the time of a round trip goes)",
    )
    parser.add_argument(
        "--systems",
        nargs="*",
        metavar="SYSTEM",
        help="default: all that are installed; floors always run",
    )
    parser.add_argument("--json", metavar="FILE", help="write every value of every run")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw a picture (.svg or .png); needs matplotlib"
    )
    parser.add_argument(
        "--load",
        nargs="*",
        metavar="FILE",
        default=[],
        help="begin with the figures of earlier runs; later ones replace them",
    )
    parser.add_argument(
        "--only-load",
        action="store_true",
        help="measure nothing: report and draw what --load names",
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write the figures, the picture and the steps into the pages in docs/",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny counts and one run: shows that the program works, and nothing else",
    )
    parser.add_argument(
        "--repeats", type=int, help="runs of each system, instead of each case's own number"
    )
    parser.add_argument(
        "--limit",
        type=float,
        help="seconds that one run may take, instead of each case's own number",
    )
    arguments = parser.parse_args()
    known = [*cases(), "steps"]
    for given, names in ((arguments.cases, known), (arguments.systems, list(SYSTEMS))):
        if unknown := sorted(set(given or ()) - set(names)):
            parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(names)}")
    return arguments


def _list() -> None:
    print("cases")
    for name, case in cases().items():
        print(f"  {name:20s}{case.title}")
    print(f"  {'steps':20s}where the time of one round trip goes (only when it is named)")
    print("systems")
    for name, system in SYSTEMS.items():
        print(
            f"  {name:20s}{system.title} "
            f"{system.version() if system.installed() else '(not installed)'}"
        )


def main() -> int:
    arguments = _arguments()
    # through the contexts that end what runs
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if arguments.list:
        _list()
        return 0
    results: dict[str, Any] = {"machine": report.machine(), "quick": arguments.quick, "cases": {}}
    sessions = 0 if arguments.only_load else 1
    for path in arguments.load:
        loaded = json.loads(Path(path).read_text(encoding="utf-8"))
        results["cases"].update(loaded["cases"])
        sessions += loaded["machine"].get("sessions", 1) if loaded["cases"] else 0
        if "steps" in loaded:
            results["steps"] = loaded["steps"]
        if arguments.only_load:
            results.update(machine=loaded["machine"], quick=loaded["quick"])
    results["machine"]["sessions"] = sessions  # ratios within a case are always of one session
    wanted = (
        [] if arguments.only_load else list(cases()) if arguments.cases is None else arguments.cases
    )
    where = results["machine"]
    print(
        f"Python {where['python']}, {where['system']}, {where['cores']} cores, load "
        f"{where['load']}, {where['date']}\n",
        flush=True,
    )
    for name in wanted:
        if name == "steps":
            from . import steps

            results["steps"] = steps.measure(quick=arguments.quick)
            print("\n".join(steps.lines(results["steps"])) + "\n", flush=True)
            continue
        case = cases()[name]
        result = runs.run_case(
            case, arguments.systems, quick=arguments.quick, repeats=arguments.repeats,
            limit=arguments.limit,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        result["bounds"] = report.judged(case, result, quick=arguments.quick)
        results["cases"][name] = result
        print("\n".join(report.table(name, result)) + "\n", flush=True)
        if arguments.json:  # after each case: an interrupted run has figures too
            _write(results, arguments.json)
    if arguments.only_load:
        for name, result in results["cases"].items():
            print("\n".join(report.table(name, result)) + "\n")
    results["cases"] = {
        name: results["cases"][name] for name in cases() if name in results["cases"]
    }
    if arguments.json:
        _write(results, arguments.json)
    if verdicts := list(report.summary(results)):
        print(
            "Targets"
            + (" (of a quick run, which says nothing about speed)" if results["quick"] else "")
        )
        print("\n".join(verdicts), flush=True)
    if arguments.docs:
        _fill_pages(results)
    if arguments.plot:
        chart.draw(results, arguments.plot)
    return 0


def _fill_pages(results: dict[str, Any]) -> None:
    if not results["cases"].keys().isdisjoint(report.PAYLOADS):
        _fill("benchmarks.md", "payloads", report.payloads(results))
    if results["cases"].keys() - set(report.PAYLOADS):
        _fill("benchmarks.md", "figures", report.markdown(results))
        chart.draw(results, str(DOCS / "benchmarks.png"))
    if "steps" in results:
        from . import steps

        _fill("where-the-time-goes.md", "steps", steps.lines(results["steps"]))


def _fill(page: str, mark: str, lines: Iterator[str]) -> None:
    path = DOCS / page
    path.write_text(report.fill(path.read_text(encoding="utf-8"), mark, lines), encoding="utf-8")


def _write(results: dict[str, Any], path: str) -> None:
    Path(path).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
