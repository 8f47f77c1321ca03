"""A session that shares its files among processes ends, whatever becomes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("xdist")

CONFTEST = """
import os
from tests.support.nodes import Nodes

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        fd = os.dup(2)
        say = lambda text: os.write(fd, text.encode())
        config.pluginmanager.register(Nodes(lambda pid: f"described: {pid}", say, 3.0))
"""
HARMS = {
    "killed, its child holds the pipe": """
def test_harm():
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)
""",
    "stopped": """
def test_harm():
    os.kill(os.getpid(), signal.SIGSTOP)
""",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("harm", HARMS)
def test_harm_to_a_process_ends_the_session_with_its_name(harm: str, tmp_path: Path) -> None:
    """xdist alone would wait for ever for a process that will never report."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_good.py").write_text("def test_good(): pass")
    (tmp_path / "test_harm.py").write_text("import os, signal, time\n" + HARMS[harm])
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:randomly"]
    done = subprocess.run(
        [*command, "--max-worker-restart", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "crashed while running 'test_harm.py::test_harm'" in said
    assert "described: " in said
    assert "running: test_harm.py::test_harm" in said
