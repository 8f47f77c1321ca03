"""The portable layer alone, between every two Python versions.

What one has written as source, the other runs with the same result.

Every version sends once, and receives from all others in one process (with a child per sender, so
that a crash concerns one pair only).
"""

from __future__ import annotations

import ast
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.portable.pages import kinds_of_the_page
from tests.support import interpreters
from wetlands_executor.pool import bundle

#: Seconds: the first test waits for all versions, on a busy machine too.
pytestmark = pytest.mark.timeout(400)
HERE = Path(__file__).parent
#: Seconds that one process may take for all its cases.
DEADLINE = 60


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let all versions send and receive; return the folder with a report per pair."""
    folder = tmp_path_factory.mktemp("pairs")
    shipped = folder / "bundle"
    shipped.write_bytes(bundle.source())
    found = {interpreter.minor: interpreter.path for interpreter in interpreters.find()}

    def run(minor: str, *arguments: str) -> None:
        command = [str(found[minor]), "-I", str(HERE / "layer.py"), str(shipped), *arguments]
        with (folder / f"{minor}-{arguments[0]}.log").open("w") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=DEADLINE,
                check=False,
            )

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda minor: run(minor, "send", str(folder / minor)), found))
        list(
            threads.map(
                lambda minor: run(minor, "receive", str(folder), minor, ",".join(found)), found
            )
        )
    return folder


@pytest.mark.parametrize("receiver", interpreters.MINORS)
@pytest.mark.parametrize("sender", interpreters.MINORS)
def test_every_case_between_two_versions(sender: str, receiver: str, reports: Path) -> None:
    """A line for each case that fails."""
    there = {interpreter.minor for interpreter in interpreters.find()}
    if absent := {sender, receiver} - there:
        pytest.skip(f"no working Python {' and '.join(sorted(absent))} on this machine")
    report = reports / f"{sender}-{receiver}.json"
    if not report.exists():
        said = [
            log.read_text()[-2000:]
            for log in (reports / f"{sender}-send.log", reports / f"{receiver}-receive.log")
        ]
        pytest.fail("there is no report, one side has crashed:\n" + "\n".join(said), pytrace=False)
    found = json.loads(report.read_text())
    failed = found["failed"].items()
    lines = [
        f"{sender} to {receiver}: {case}: {what}\n    got {got}\n    instead of {wanted}"
        for case, (what, got, wanted) in failed
    ]
    assert found["count"] >= 60
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def test_the_page_names_what_the_cases_show() -> None:
    """Every kind of the table in docs/portable.md has cases, and every case has its row."""
    rows = [
        node.decorator_list[0]
        for node in ast.walk(ast.parse((HERE / "cases.py").read_text()))
        if getattr(node, "decorator_list", None)
    ]
    shown = {
        row.args[0].value
        for row in rows
        if isinstance(row, ast.Call) and getattr(row.func, "id", "") == "case"
    }  # type: ignore[attr-defined]
    assert shown == kinds_of_the_page()


def test_the_cases_are_written_for_the_oldest_version() -> None:
    """Else an old sender would fail as a whole, and no case of its would be tried."""
    ast.parse((HERE / "cases.py").read_text(), feature_version=(3, 8))
