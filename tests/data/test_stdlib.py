"""Values of the standard library between versions of Python.

Hosts of the oldest and the newest version, workers of all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.data import stdlib_cases
from tests.support import interpreters

#: Seconds that all cases of a pair may take.
LIMIT = 120
HOSTS = ("3.10", "3.13")
WORKERS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")

#: What cannot be cured: case -> (minor version of the first Python that has it, what the error
#: says).
IMPOSSIBLE = {
    "zoneinfo.ZoneInfo": (9, "since Python 3.9"),
    "datetime.datetime with zoneinfo": (9, "since Python 3.9"),
    "ExceptionGroup": (11, "since Python 3.11"),
    "BaseExceptionGroup": (11, "since Python 3.11"),
}
#: What an older Python cannot make, but gets in another form: case -> minor version of the first
#: that can.
ONLY_HERE = {"list[int]": 9, "int | str": 10}
#: Between one that is older than this and one that is not there is no way, in either direction.
APART = {"platform.uname_result": (9, "Python is")}
#: An exception that the older one lacks arrives as the class that code for both would catch.
REPLACED = {"EncodingWarning": (10, "Warning"), "PythonFinalizationError": (13, "RuntimeError")}
_ABSENT = re.compile(r"this Python has no|No module named 'zoneinfo'")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is called ``site-packages``, with what a host of any version needs."""
    folder = tmp_path_factory.mktemp("packages") / "site-packages"
    folder.mkdir()
    for name in ("cloudpickle", "psutil", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        (folder / source.name).symlink_to(source)
    return folder


@pytest.fixture(scope="session")
def exchanged(packages: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What each pair has found."""
    found = {each.minor: each for each in interpreters.find()}
    pairs = [
        (host, worker) for host in HOSTS for worker in WORKERS if host in found and worker in found
    ]

    def exchange(pair: tuple[str, str]) -> dict[str, Any]:
        host, worker = (found[minor].path for minor in pair)
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(packages)))}
        command = [
            host,
            "-W",
            "ignore",
            "-m",
            "tests.data.exchange",
            "tests.data.stdlib_cases",
            worker,
        ]
        done = subprocess.run(
            command,
            env=variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"the host of {pair} failed:\n{done.stderr[-4000:]}"
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(pairs, threads.map(exchange, pairs), strict=True))


@pytest.mark.leaks_ok(
    reason="starts nothing: it reads what a fixture has found, thousands of times"
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*stdlib_cases.CASES, *stdlib_cases.RAISES])
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("worker", WORKERS)
def test_stdlib(
    exchanged: dict[tuple[str, str], dict[str, Any]], host: str, worker: str, name: str
) -> None:
    """It arrives as the sender's own Python would read it again, comes back so, and so does what
    was made there.
    """
    if (host, worker) not in exchanged:
        pytest.skip(f"no working Python {host} or {worker} on this machine")
    found = exchanged[host, worker]
    assert found["versions"]["host"].startswith(f"{host}.")
    assert found["versions"]["worker"].startswith(f"{worker}.")
    minors = {"host": int(host[2:]), "worker": int(worker[2:])}
    for direction, outcome in found[name].items():
        first, words = (IMPOSSIBLE.get(name) or REPLACED.get(name)) or (0, "")
        sender, receiver = ("worker", "host") if direction == "made there" else ("host", "worker")
        apart, reason = APART.get(name, (0, ""))
        if (minors[sender] < apart) != (minors[receiver] < apart) or (
            direction == "back" and (minors["host"] < apart) != (minors["worker"] < apart)
        ):
            assert reason in outcome, f"{direction}: {outcome}"
            assert found["versions"]["host"] in outcome
            assert found["versions"]["worker"] in outcome
        elif minors[sender] < max(first, ONLY_HERE.get(name, 0)):
            assert outcome == "absent" or _ABSENT.search(outcome), f"{direction}: {outcome}"
        elif name in REPLACED and minors[receiver] < first:
            assert outcome == "ok" or f"became ['{words}'" in outcome, f"{direction}: {outcome}"
        elif minors[receiver] < first:
            assert words in outcome, f"{direction}: {outcome}"
        else:
            assert outcome == "ok", f"{direction}: {outcome}"
