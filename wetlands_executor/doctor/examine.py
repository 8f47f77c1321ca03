"""Look at an environment, start one worker in it, measure.

A report of builtin types, ready for JSON. The keys are documented in docs/doctor.md.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wetlands_executor import CondaEnvExecutor, __version__
from wetlands_executor.doctor import advice, machine
from wetlands_executor.environment import Environment
from wetlands_executor.environment.activate import activation_scripts
from wetlands_executor.errors import WetlandsExecutorError
from wetlands_executor.serialize.interpreter import MAGIC

#: Version of the report's keys: it grows when one is removed or changes its meaning.
SCHEMA = 1
#: Calls of which the round trip is the median.
CALLS = 200
#: Seconds that an interpreter may take to say its version.
PROBE_LIMIT = 30.0

# Any Python from 2.7 on has to understand this.
_PROBE = (
    "import sys, platform; sys.stdout.write('\\n'.join(['wetlands-doctor', '.'.join(map(str, "
    "sys.version_info[:3])), "
    "platform.python_implementation(), sys.executable or '', sys.prefix]))"
)


def examine(env: Any, *, start_timeout: float = 60.0) -> dict[str, Any]:
    """Examine an environment.

    Args:
        env: as for ``CondaEnvExecutor``.
        start_timeout: seconds that its worker may take to be ready.

    Returns:
        The report. ``ok`` is True if a worker can be started; ``problems`` what should be known.

    Raises:
        EnvironmentNotFoundError: there is no such environment, or more than one.
    """
    environment = Environment.find(env)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "ok": False,
        "environment": {
            "asked": None if env is None else str(env),
            "name": environment.name,
            "kind": environment.kind,
            "prefix": str(environment.prefix),
            "python": str(environment.python),
        },
        "host": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "prefix": sys.prefix,
            "platform": platform.platform(),
            "wetlands_executor": __version__,
        },
        "interpreter": None,
        "activation": None,
        "start": None,
        "round_trip": None,
        "code": None,
        "packages": {},
        "memory": machine.memory(),
        "limits": machine.limits(),
        "mechanisms": machine.mechanisms(),
        "worker": None,
        "failure": None,
    }
    variables = _examine_activation(environment, report)
    if variables is not None:
        _examine_interpreter(environment, variables, report)
        if report["failure"] is None:
            _examine_worker(environment, start_timeout, report)
    report["problems"] = advice.problems(report)
    return report


def _examine_activation(environment: Environment, report: dict[str, Any]) -> dict[str, str] | None:
    """Note what activation does; return the variables, None if it fails.

    Of variables only the names are reported: their values may be secret.
    """
    start = time.perf_counter()
    try:
        variables = dict(environment.launch_spec().env)
        scripts = activation_scripts(environment)
    except (WetlandsExecutorError, OSError) as error:
        report["failure"] = {
            "step": "activation",
            "type": type(error).__name__,
            "message": str(error),
        }
        return None
    here = dict(os.environ)
    added_path = [
        part
        for part in variables.get("PATH", "").split(os.pathsep)
        if part not in here.get("PATH", "").split(os.pathsep)
    ]
    report["activation"] = {
        "seconds": round(time.perf_counter() - start, 4),
        "scripts": scripts,
        "set": sorted(name for name, value in variables.items() if here.get(name) != value),
        "removed": sorted(name for name in here if name not in variables),
        "path": added_path,
    }
    return variables


def _examine_interpreter(
    environment: Environment, variables: dict[str, str], report: dict[str, Any]
) -> None:
    """Ask the interpreter what it is, in words that an old one understands too."""
    command = [str(environment.python), "-c", _PROBE]
    try:
        done = subprocess.run(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        report["failure"] = {
            "step": "interpreter",
            "type": type(error).__name__,
            "message": str(error),
        }
        return
    lines = (
        done.stdout.decode(errors="replace")
        .replace("\r\n", "\n")
        .partition("wetlands-doctor\n")[2]
        .split("\n")
    )
    if done.returncode != 0 or len(lines) < 4:
        words = done.stderr.decode(errors="replace").strip()
        message = (
            f"{environment.python} ended with exit code {done.returncode}: "
            f"{words[-2000:] or 'it wrote nothing'}"
        )
        report["failure"] = {"step": "interpreter", "type": "WorkerStartError", "message": message}
        return
    report["interpreter"] = {
        "version": lines[0],
        "implementation": lines[1],
        "executable": lines[2],
        "prefix": lines[3],
    }


def _examine_worker(environment: Environment, start_timeout: float, report: dict[str, Any]) -> None:
    """Start a worker, measure it, and have it report on itself."""
    start = time.perf_counter()
    try:
        with CondaEnvExecutor(environment, max_workers=1, start_timeout=start_timeout) as executor:
            executor.submit(abs, -1).result()
            report["start"] = {"seconds": round(time.perf_counter() - start, 4)}
            report["ok"] = True
            report["round_trip"] = _round_trip(executor)
            # By its name: a bound method of the constant, which answers in builtin types.
            magic = executor.submit("importlib.util:MAGIC_NUMBER.hex").result()
            report["worker"] = executor.submit(
                f"{Path(__file__).with_name('probe.py')}:look"
            ).result()
            report["packages"] = _packages(report["worker"].pop("packages"))
    except WetlandsExecutorError as error:
        report["failure"] = {"step": "start", "type": type(error).__name__, "message": str(error)}
        return
    same = f"{report['interpreter']['implementation'].lower()}-{magic}" == MAGIC
    report["code"] = {"same_bytecode": same, "transfer": "bytecode" if same else "source"}


def _round_trip(executor: CondaEnvExecutor) -> dict[str, Any]:
    """Measure calls that do nothing; microseconds."""
    for _ in range(CALLS // 10):
        executor.submit(abs, -1).result()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        executor.submit(abs, -1).result()
        times.append((time.perf_counter() - start) * 1e6)
    return {
        "calls": CALLS,
        "median_us": round(statistics.median(times), 1),
        "fastest_us": round(min(times), 1),
    }


def _packages(there: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put both sides together.

    Package -> here, there, error, exchange (one of advice.EXCHANGES).
    """
    found: dict[str, Any] = {}
    for name, state in there.items():
        here: str | None
        try:
            here = importlib.metadata.version(
                "wetlands-executor" if name == "wetlands_executor" else name
            )
        except importlib.metadata.PackageNotFoundError:
            here = __version__ if name == "wetlands_executor" else None
        found[name] = {"here": here, "there": state["version"], "error": state["error"]}
        if name in ("numpy", "pandas"):
            found[name]["exchange"] = advice.exchange(name, here, state["version"])
    return found
