"""A report in lines for people, and the command itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from wetlands_executor.doctor import advice, examine
from wetlands_executor.errors import EnvironmentNotFoundError

#: Exit codes of the command.
FINE, CANNOT_START, USAGE = 0, 1, 2

#: A label, and what is said.
Row = tuple[str, str]


def run(env: str, *, as_json: bool, start_timeout: float, out: TextIO | None = None) -> int:
    """Examine an environment, print the report, return the exit code."""
    out = sys.stdout if out is None else out
    try:
        report = examine.examine(env, start_timeout=start_timeout)
    except EnvironmentNotFoundError as error:
        if as_json:
            failure = {"step": "find", "type": type(error).__name__, "message": str(error)}
            problem = {
                "level": "error",
                "what": str(error),
                "remedy": "give the name or the path of an environment",
            }
            json.dump(
                {"schema": examine.SCHEMA, "ok": False, "failure": failure, "problems": [problem]},
                out,
                indent=2,
            )
            out.write("\n")
        else:
            sys.stderr.write(f"wetlands-executor doctor: {error}\n")
        return USAGE
    if as_json:
        json.dump(report, out, indent=2)
        out.write("\n")
    else:
        out.write("\n".join(lines(report)) + "\n")
    return FINE if report["ok"] else CANNOT_START


def lines(report: dict[str, Any]) -> list[str]:
    """Return the report as lines of text."""
    rows = [*_who(report), *_activation(report), *_trip(report), *_machine(report)]
    found = [f"{label:<14}{text}" for label, text in rows]
    for problem in report["problems"]:
        found += ["", f"{problem['level']}: {problem['what']}", f"  remedy: {problem['remedy']}"]
    found += ["", "A worker can be started." if report["ok"] else "No worker can be started."]
    return found


def _who(report: dict[str, Any]) -> Iterator[Row]:
    """Yield what the environment is, and what this process is."""
    environment, interpreter, host = report["environment"], report["interpreter"], report["host"]
    yield (
        "environment",
        (
            f"{environment['name'] or environment['prefix']} ({environment['kind']}), "
            f"{environment['prefix']}"
        ),
    )
    if interpreter is not None:
        yield (
            "interpreter",
            f"{interpreter['implementation']} {interpreter['version']}, {environment['python']}",
        )
    yield (
        "this process",
        (
            f"{host['implementation']} {host['version']}, wetlands_executor "
            f"{host['wetlands_executor']}, {host['platform']}"
        ),
    )


def _activation(report: dict[str, Any]) -> Iterator[Row]:
    """Yield what the activation took and did."""
    activation = report["activation"]
    if activation is not None:
        scripts = ", ".join(activation["scripts"]) or "none"
        yield ("activation", f"{activation['seconds'] * 1000:.0f} ms; scripts: {scripts}")
        yield (
            "",
            (
                f"sets {', '.join(activation['set']) or 'nothing'}; removes "
                f"{', '.join(activation['removed']) or 'nothing'}"
            ),
        )


def _trip(report: dict[str, Any]) -> Iterator[Row]:
    """Yield what a worker has shown, if one could be started."""
    if report["ok"]:
        trip = report["round_trip"]
        yield ("start", f"{report['start']['seconds'] * 1000:.0f} ms until the first result")
        yield (
            "round trip",
            (
                f"{trip['median_us']:.0f} us (median of {trip['calls']} calls; fastest "
                f"{trip['fastest_us']:.0f} us)"
            ),
        )
        yield (
            "code",
            "as bytecode: the same version of Python"
            if report["code"]["same_bytecode"]
            else "as source: another version of Python",
        )
        for name in ("numpy", "pandas"):
            package = report["packages"][name]
            versions = f"{package['here'] or 'missing'} here, {package['there'] or 'missing'} there"
            yield (name, f"{versions}; exchanged: {advice.EXCHANGES[package['exchange']]}")


def _machine(report: dict[str, Any]) -> Iterator[Row]:
    """Yield what the machine has to offer."""
    memory, limits, mechanisms = report["memory"], report["limits"], report["mechanisms"]
    parts = [f"{advice.size(memory['available'])} available"]
    if memory["cgroup_limit"] is not None:
        parts.append(
            f"limited to {advice.size(memory['cgroup_limit'])} "
            f"({advice.size(memory['cgroup_used'])} used)"
        )
    if memory["shm_free"] is not None:
        parts.append(f"{advice.size(memory['shm_free'])} free in /dev/shm")
    parts.append("memfd" if memory["memfd"] else "no memfd")
    yield ("memory", ", ".join(parts))
    files = limits["open_files"] if limits["open_files"] is not None else "any number of"
    used = limits["open_files_used"] if limits["open_files_used"] is not None else "?"
    yield ("descriptors", f"{files} ({used} used here)")
    yield (
        "mechanisms",
        ", ".join(name if there else f"no {name}" for name, there in mechanisms.items()),
    )
