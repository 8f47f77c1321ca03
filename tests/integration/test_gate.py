"""The gate (``.ci/run``) over small projects: which commands it runs, and what fails it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / ".ci" / "run"

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="the gate is a script for bash"),
    pytest.mark.skipif(not GATE.exists(), reason="not in a source tree"),
]

SNIPPET = (
    "```python\nimport os, sys\nassert os.listdir() == ['first.py'], os.listdir()\nprint('first "
    "snippet in', sys.prefix)\n```\n"
)
PICTURE = b"\x89PNG\r\n\x1a\n" + b"x" * 200_000 + b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
#: Fails at the first try and passes at the second.
PYTEST = """
import os, sys
print("arguments", sys.argv[1:])
more = [name for name in ("WALKS", "EXAMPLES", "STORMS") if f"WETLANDS_{name}" in os.environ]
if more:
    print(more[0].lower(), os.environ[f"WETLANDS_{more[0]}"])
elif "--last-failed" in sys.argv:
    print("=== 1 passed in 0.50s ===")
else:
    own = sys.prefix != sys.base_prefix
    print("in a clone:", os.path.isdir(".git"), "in an environment of its own:", own)
    print("FAILED tests/test_it.py::test_it\\n=== 1 failed, 5 passed in 1.50s ===")
    sys.exit(1)
"""


def project(folder: Path, readme: str) -> Path:
    """Make a project with this README, a gate, and stand-ins for pytest and the soak."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(GATE, folder / ".ci")
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / "pytest.py").write_text(PYTEST)
    (folder / "picture.png").write_bytes(PICTURE)
    (folder / "tests").mkdir()
    (folder / "tests" / "soak.py").write_text("import sys\nprint('soak', sys.argv[1:])\n")
    return folder


def run(folder: Path) -> tuple[int, list[str]]:
    """Run the gate with this Python, whose virtual environments are made without pip.

    That takes most of the time, and none is used here.
    """
    commands = folder.parent / "bin"
    commands.mkdir()
    command = commands / "python3"
    python = shlex.quote(sys.executable)
    command.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] && exec {python} -m venv '
        f'--without-pip "$3"\nexec {python} "$@"\n'
    )
    command.chmod(0o755)
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "PYTEST_"))
    }
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=folder,
        env={**variables, "PATH": f"{commands}{os.pathsep}{variables['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_commands_are_run_as_the_readme_has_them(tmp_path: Path) -> None:
    """In a clone of the commit, without what is not committed.

    Only the extra dev cannot be had here.
    """
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    readme = (
        f"# It\n{SNIPPET}\n```sh\nmkdir wetlands-demo && cp picture.png wetlands-demo && echo "
        f"wetlands_executor demo\n```\n"
        "```sh\npython -c 'print(\"installed\")' && python -m pytest\n```\n"
    )
    folder = project(tmp_path / "it", readme)
    git = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "commit.gpgsign=false",
        "-C",
        str(folder),
    ]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "it"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    (folder / "README.md").write_text("not committed")
    code, lines = run(folder)
    text = "\n".join(lines)
    assert code == 1, text
    assert [line for line in lines if line.startswith("FAILED: ")] == [
        "FAILED: the extra dev cannot be installed"
    ], text
    assert "wetlands_executor demo" in lines
    assert any(
        line.startswith("first snippet in ") and line.endswith("/demo-venv") for line in lines
    ), text
    assert "installed" in lines
    assert "in a clone: True in an environment of its own: True" in lines
    assert "soak ['--seconds', '60']" in lines
    assert "arguments ['-q', 'tests/unit/test_state_walk.py']" in lines
    assert "walks 8000" in lines
    assert "arguments ['-q', 'tests/properties']" in lines
    assert "examples 200" in lines
    assert "arguments ['-q', 'tests/tasks/test_stress.py', '-k', 'long']" in lines
    assert "storms 3" in lines
    assert "UNSTABLE: 1 failed at first and passed alone:" in lines
    assert lines[-1] == "=== 1 passed in 0.50s ==="


def test_what_is_missing_fails_the_gate(tmp_path: Path) -> None:
    """No command for the tests, no picture; and no repository, which is said."""
    readme = (
        f"{SNIPPET}\n```sh\ntrue wetlands_executor demo\n```\n`python -m pytest` is not in a "
        f"block.\n"
    )
    code, lines = run(project(tmp_path / "it", readme))
    failed = {line.removeprefix("FAILED: ") for line in lines if line.startswith("FAILED: ")}
    assert code == 1, lines
    assert failed == {
        "the demo's picture",
        "the tests' command is not in README.md",
        "the extra dev cannot be installed",
    }, lines
    assert "no git, or no commit: a copy of the folder is tested instead of a clone" in lines
    assert lines[-1] == "pytest did not come to an end"


def test_a_process_that_was_left_behind_does_not_hold_the_gate(tmp_path: Path) -> None:
    """It has inherited the place that pytest prints to, and pytest was killed."""
    readme = (
        f"{SNIPPET}\n```sh\ntrue wetlands_executor demo\n```\n"
        f"```sh\nsleep 600 & echo $! > {tmp_path}/pid && kill -9 $$ && python -m pytest\n```\n"
    )
    try:
        code, lines = run(project(tmp_path / "it", readme))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert code == 1, lines
    assert "FAILED: the tests' command (exit code 137)" in lines
    assert lines[-1] == "pytest did not come to an end"


def test_the_readme_has_the_two_commands() -> None:
    """The promises of the project: they may not be changed without notice."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.count("python -m pip install . && python -m wetlands_executor demo") == 1
    assert lines.count("python -m pip install '.[test]' && python -m pytest") == 1
