"""Figures to tables, and bounds to verdicts. Knows the JSON, starts nothing, measures nothing.

The JSON: ``machine`` (what it ran on), ``cases`` (name -> what ``runs.run_case`` returned, and
``bounds``). Every value of every run is in it.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .model import Bound, Case
from .systems import SYSTEMS


def machine() -> dict[str, Any]:
    """Return what a reader has to know about where the figures come from.

    Nothing that names the machine.
    """
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def figures_of(case: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Return system -> figure -> values, of those that have any."""
    return {name: entry["figures"] for name, entry in case["systems"].items() if entry["figures"]}


def judged(case: Case, result: Mapping[str, Any], *, quick: bool) -> list[dict[str, Any]]:
    """Return the bounds of a case with what was found; a quick run is no ground to judge on."""
    found = figures_of(result)
    return [
        _judged(bound, found) | ({"met": None, "stretch_met": None} if quick else {})
        for bound in case.bounds
    ]


def _judged(bound: Bound, found: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    value = bound.value(found)
    return {
        "text": bound.text, "value": value, "at_most": bound.at_most, "stretch": bound.stretch,
        "speedup": bound.speedup, "ratio": bool(bound.of),
        "figure": bound.figure, "system": bound.system,
        "met": None if value is None else value <= bound.at_most,
        "stretch_met": None if value is None or bound.stretch is None else value <= bound.stretch,
    }  # fmt: skip


def number(value: float, unit: str) -> str:
    """Write a figure for people."""
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
            if value * factor >= 1 or name == "us":
                return (
                    f"{value * factor:.3g} {name}"
                    if value * factor < 1000
                    else f"{value * factor:.0f} {name}"
                )
    if unit == "bytes":
        return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value:.0f} B"
    return f"{value:.4g}" if value < 1000 else f"{value:g}"


def table(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one case."""
    yield f"{name}: {result['title']}"
    for figure, unit in result["figures"].items():
        rows = [
            (key, entry, entry["figures"].get(figure)) for key, entry in result["systems"].items()
        ]
        if not any(values for _key, _entry, values in rows):
            continue
        if len(result["figures"]) > 1:
            yield f"  {figure}"
        ours = result["systems"].get("ours", {}).get("figures", {}).get(figure)
        base = statistics.median(ours) if ours else None
        for _key, entry, values in rows:
            if not values:
                continue
            middle = statistics.median(values)
            ratio = f"{middle / base:8.2f}x" if base else " " * 9
            spread = (
                f"[{number(min(values), unit)} to {number(max(values), unit)}]"
                if len(values) > 1
                else ""
            )
            yield f"    {entry['title']:44s}{number(middle, unit):>11s} {ratio}  {spread}"
    for entry in result["systems"].values():
        for text in filter(None, (entry["error"], entry["closing"])):
            yield f"    {entry['title']:44s}failed: {text}"
        if entry["left_behind"]:
            yield f"    {entry['title']:44s}left behind: {', '.join(entry['left_behind'])}"
    for bound in result.get("bounds", ()):
        yield "  " + verdict(bound, result["figures"])
    if result["note"]:
        yield f"  Note: {result['note']}"


def verdict(bound: Mapping[str, Any], units: Mapping[str, str]) -> str:
    """Return the line of one bound."""
    if bound["value"] is None:
        return f"not judged  {bound['text']} (something that it needs was not measured)"
    word = {True: "MET    ", False: "NOT MET", None: "(quick)"}[bound["met"]]
    text = f"{word}  {bound['text']}: {_value(bound, bound['value'], units)}"
    if bound["stretch"] is not None and bound["met"] is not None:
        text += (
            f" (stretch {_value(bound, bound['stretch'], units)} "
            f"{'met' if bound['stretch_met'] else 'not met'})"
        )
    return text


def _value(bound: Mapping[str, Any], value: float, units: Mapping[str, str]) -> str:
    if not bound["ratio"]:
        return number(value, units[bound["figure"]])
    if bound["speedup"]:
        return f"{1 / value:.3g}x" if value else "infinite"
    return f"{value:.3g}x"


def summary(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line per bound of all cases, those that are not met first."""
    bounds = [
        (name, bound, result["figures"])
        for name, result in results["cases"].items()
        for bound in result.get("bounds", ())
    ]
    for met in (False, True, None):
        for name, bound, units in bounds:
            if bound["met"] is met:
                yield f"{name:18s} {verdict(bound, units)}"


#: Columns of the table on the page: title -> systems, the package's defaults first.
COLUMNS = {
    "PPE spawn": ("ppe-spawn", "ppe-spawn-64", "ppe-forkserver"),
    "PPE fork": ("ppe-fork",),
    "Pool": ("pool-fork", "pool-spawn"),
    "loky": ("loky", "loky-64"),
    "pebble": ("pebble", "pebble-64"),
    "joblib": ("joblib", "joblib-reused"),
    "mpire": ("mpire", "mpire-alive"),
    "executorlib": ("executorlib", "executorlib-block"),
    "dask": ("dask", "dask-64"),
    "ray": ("ray", "ray-actors"),
    "floor": ("pipe", "ideal", "threads", "Future()"),
}


def markdown(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures for a page.

    A table of the first figure of each case, versions, failures, targets.
    """
    where = results["machine"]
    loads = [load for result in results["cases"].values() for load in result["load"]]
    yield f"{_measured_on(where)} The machine's load, these runs"
    yield (
        f"included, was {min(loads):.1f} to {max(loads):.1f}; far above the number of cores means "
        "that other programs ran too. Runs of each system:"
    )
    runs = [
        len(values)
        for result in results["cases"].values()
        for figures in figures_of(result).values()
        for values in figures.values()
    ]
    sessions = where["sessions"]
    yield f"{min(runs)} to {max(runs)}, after one that does not count, in {sessions} session(s)."
    if max(loads) > 2 * where["cores"] or max(runs) < 3:
        yield ""
        yield (
            "**The machine was busy with other work, or there were too few runs: read no more than "
            "orders of magnitude out of these figures.**"
        )
    yield ""
    yield f"| case | ours | {' | '.join(COLUMNS)} |"
    yield "|---|---|" + "---|" * len(COLUMNS)
    for name, result in results["cases"].items():
        if name in PAYLOADS:
            continue  # they have a table of their own
        figure, unit = next(iter(result["figures"].items()))
        medians = {
            name: statistics.median(entry["figures"][figure])
            for name, entry in result["systems"].items()
            if entry["figures"].get(figure)
        }
        if medians.get("ours"):
            cells = [
                " / ".join(
                    _cell(name, medians, result["systems"])
                    for name in names
                    if name in result["systems"]
                )
                for names in COLUMNS.values()
            ]
            yield f"| {result['title']} | {number(medians['ours'], unit)} | {' | '.join(cells)} |"
    yield ""
    yield (
        "Multiples of ours: 2 is twice as long. Two in one cell: defaults / what is recommended "
        "(Pool: fork / spawn; executorlib: process per"
    )
    yield (
        "call / block allocation; ray: remote functions / actors). PPE is `ProcessPoolExecutor`. "
        "x: a failure, or a run longer than the limit."
    )
    yield ""
    entries = [
        (case, name, entry)
        for case, result in results["cases"].items()
        for name, entry in result["systems"].items()
    ]
    if failures := [
        f"- {case}: {entry['title']}: {_gist(entry['error'])}"
        for case, _name, entry in entries
        if entry["error"]
    ]:
        yield from (*failures, "")
    if versions := {
        SYSTEMS[name].package: entry["version"]
        for _case, name, entry in entries
        if entry["version"]
    }:
        yield (
            "Versions: "
            + ", ".join(f"{package} {version}" for package, version in versions.items())
            + "."
        )
        yield ""
    yield "The targets of the project, and what this run showed:"
    yield ""
    yield "```text"
    yield from summary(results)
    yield "```"


#: Cases whose figures are those of a shape and a way.
PAYLOADS = ("payloads-small", "payloads")
#: Systems in their table, by title.
PEERS = {"PPE": "ppe-spawn", "loky": "loky", "joblib": "joblib"}


def _measured_on(where: Mapping[str, Any]) -> str:
    return (
        f"Measured on {where['date']} with Python {where['python']} on {where['system']}, "
        f"{where['cores']} cores."
    )


def payloads(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables of payloads for a page."""
    where = results["machine"]
    yield _measured_on(where)
    for name in PAYLOADS:
        result = results["cases"].get(name)
        if result is None:
            continue
        loads = result["load"]
        peers = {
            title: key
            for title, key in PEERS.items()
            if result["systems"].get(key, {}).get("figures")
        }
        yield ""
        yield (
            f"**{result['title'].capitalize()}** (load of the machine, these runs included: "
            f"{min(loads):.1f} to {max(loads):.1f})"
        )
        yield ""
        ways = dict.fromkeys(figure.rpartition(", ")[2] for figure in result["figures"])
        heads = [f"{way}: ours | {' / '.join(peers)}" for way in ways]
        yield f"| payload | {' | '.join(heads)} |"
        yield "|---|" + "--:|---|" * len(ways)
        for shape in dict.fromkeys(figure.rpartition(", ")[0] for figure in result["figures"]):
            cells = [_ways(result, f"{shape}, {way}", list(peers.values())) for way in ways]
            yield f"| {shape} | {' | '.join(cells)} |"
    yield ""
    yield "Beside ours are the others' times as multiples of it: 2 is twice as long."
    cases = [results["cases"].get(name, {}) for name in PAYLOADS]
    measured = {key for case in cases for key in case.get("systems", ())}
    for title, key in PEERS.items():
        if key not in measured:
            why = "left out" if SYSTEMS[key].installed() else "not installed there"
            yield f"{title}: no column, because it was {why}."


def _ways(result: Mapping[str, Any], figure: str, peers: Sequence[str]) -> str:
    medians = {
        name: statistics.median(entry["figures"][figure])
        for name, entry in result["systems"].items()
        if entry["figures"].get(figure)
    }
    if "ours" not in medians:
        return " | "
    cells = [_cell(name, medians, result["systems"]) for name in peers]
    return f"{number(medians['ours'], 's')} | {' / '.join(cells)}"


def _gist(error: str) -> str:
    """Return the last line of an error, which says what it is.

    Those before it name files of this machine.
    """
    return re.sub("\x1b\\[[0-9;]*m", "", error.strip().splitlines()[-1])


def _cell(name: str, medians: Mapping[str, float], systems: Mapping[str, Any]) -> str:
    if name not in medians:
        return "x" if systems[name]["error"] else ""
    ratio = medians[name] / medians["ours"]
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.2g}"


def fill(page: str, mark: str, lines: Iterator[str]) -> str:
    """Return a page with these lines between ``<!-- mark -->`` and ``<!-- end of mark -->``."""
    before, begin, rest = page.partition(f"<!-- {mark} -->\n")
    _old, end, after = rest.partition(f"<!-- end of {mark} -->")
    if not begin or not end:
        raise ValueError(f"the page has no place for {mark}")
    return before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after
