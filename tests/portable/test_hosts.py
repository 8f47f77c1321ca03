"""End to end.

A host of every supported version with a worker of every version, and a tap on the pipes between
them.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.portable.conftest import Run
from tests.support import interpreters

#: Seconds: the first test waits for all versions, on a busy machine too.
pytestmark = pytest.mark.timeout(400)
HERE = Path(__file__).parent
#: Versions that a host may have.
HOSTS = tuple(minor for minor in interpreters.MINORS if int(minor.partition(".")[2]) >= 10)


@pytest.fixture(scope="session")
def reports(run_host: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let every host run with all workers; return the folder with a report per pair."""
    folder = tmp_path_factory.mktemp("hosts")
    workers = [f"{interpreter.minor}={interpreter.path}" for interpreter in interpreters.find()]

    def run(minor: str) -> None:
        done = run_host(minor, str(HERE / "hosts.py"), str(folder / minor), *workers)
        (folder / f"{minor}.log").write_text(
            f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, [minor for minor in HOSTS if minor in present()]))
    return folder


def present() -> set[str]:
    return {interpreter.minor for interpreter in interpreters.find()}


def skip_if_absent(*minors: str) -> None:
    if absent := set(minors) - present():
        pytest.skip(f"no working Python {' and '.join(sorted(absent))} on this machine")


@pytest.mark.parametrize("worker", interpreters.MINORS)
@pytest.mark.parametrize("host", HOSTS)
def test_every_case_from_a_host_to_a_worker(host: str, worker: str, reports: Path) -> None:
    """There and back, between equal versions too.

    No bytecode passes the pipes or shared memory where the versions differ.
    """
    skip_if_absent(host, worker)
    report = reports / f"{host}-{worker}.json"
    if not report.exists():
        pytest.fail(
            f"the host of Python {host} gave no report: {(reports / f'{host}.log').read_text()}",
            pytrace=False,
        )
    found = json.loads(report.read_text())
    lines = [
        f"host {host}, worker {worker}: {name}: {what}" for name, what in found["failed"].items()
    ]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)
    assert found["count"] > 70
    assert found["memory"]["out"]["bytes"] > 300_000, "nothing went through shared memory"
    assert found["memory"]["in"]["bytes"] > 300_000
    if host != worker:
        assert found["bytecode"] == {"in": [], "out": []}
    else:
        assert "CodeType" in found["bytecode"]["in"], (
            "the tap does not see what passes between equal versions"
        )
        assert {"CodeType", "f"} <= set(found["bytecode"]["out"])


def test_the_tap_finds_bytecode_when_code_travels_as_it_is(run_host: Run, tmp_path: Path) -> None:
    """In both directions: so the test above would fail if portability were lost.

    The host may die of what it receives; it has recorded it.
    """
    others = [i for i in interpreters.find() if i.version[:2] != sys.version_info[:2]]
    if not others:
        pytest.skip("only one Python version on this machine")
    host = f"{sys.version_info[0]}.{sys.version_info[1]}"
    done = run_host(
        host,
        str(HERE / "hosts.py"),
        str(tmp_path / "off"),
        f"{others[0].minor}={others[0].path}",
        PORTABLE="0",
    )
    report = tmp_path / f"off-{others[0].minor}.json"
    assert report.exists(), done.stderr
    assert json.loads(report.read_text())["memory"]["out"]["bytecode"], "in shared memory, too"
    found = json.loads(report.read_text())["bytecode"]
    assert {"CodeType", "f"} <= set(found["out"]), (
        "the reduction, and the instructions of the function themselves"
    )
    assert "CodeType" in found["in"]
