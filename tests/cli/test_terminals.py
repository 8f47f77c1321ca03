"""Commands that make and remove environments, on a terminal, as its screen shows them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.environments.conftest import Index

pytest.importorskip("pty", reason="terminals of POSIX")
pytest.importorskip("pexpect", reason="terminals are driven with pexpect (extra test)")
pytest.importorskip("pyte", reason="reads the screens of terminals (extra test)")

from tests.support.terminal import Terminal

#: Columns that take the longest path of a test in one row.
WIDE = 400


def on_terminal(program: Program, *words: object, **env: str) -> Terminal:
    """Run a command on a terminal of its own."""
    variables = {**program.variables, **env}
    return Terminal(*program.command(*words), columns=WIDE, cwd=program.folder, **variables)


def shown_by(program: Program, *words: object, code: int = 0, **env: str) -> list[str]:
    """Run a command to its end, which leaves the terminal as it was; return the lines shown."""
    with on_terminal(program, *words, **env) as terminal:
        before = terminal.modes
        shown = terminal.finish()
        assert terminal.code == code, shown
        assert terminal.modes == before
        assert (terminal.cursor.x, terminal.cursor.hidden) == (0, False)
        assert "Traceback" not in shown
        assert b"\x1b[?1049h" not in terminal.raw
    return shown.splitlines()


def interrupt(program: Program, wait_for: str, *words: object, **env: str) -> str:
    """Type Ctrl-C when a command shows a text; return all that it has shown at its end."""
    with on_terminal(program, *words, **env) as terminal:
        before = terminal.modes
        terminal.wait_for(wait_for)
        terminal.type("\x03")
        shown = terminal.finish()
        assert terminal.code == 130, shown
        assert terminal.modes == before
        assert "Traceback" not in shown
    return shown


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Give the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


class TestEnvironments:
    def test_create_remove_and_prune(self, program: Program, index: Index) -> None:
        """The steps are lines of their own; the path comes last."""
        index.script(program.folder / "tool.py", "wl-beta")
        *steps, path = shown_by(program, "create", "tools", "--from", "tool.py")
        assert Path(path).name == "tools"
        assert any(step.startswith("installing: ") for step in steps), steps
        assert len(set(steps)) == len(steps), "no step is told twice"
        assert shown_by(program, "create", "tools", "--from", "tool.py")[-1] == path
        assert shown_by(program, "create", "tools", "--from", "tool.py", "--quiet") == [path]

        (refusal,) = shown_by(
            program, "create", "tools", "--from", "tool.py", "--pypi", "wl-alpha<2", code=2
        )
        assert "--update" in refusal
        more = ("--from", "tool.py", "--pypi", "wl-missing", "--update")
        assert "wl-missing" in "\n".join(shown_by(program, "create", "tools", *more, code=1))
        assert program("run", "tools", "true").returncode == 0, "it is as it was"
        *_, made = shown_by(program, "create", "tool.py")
        assert Path(made).is_dir()

        assert shown_by(program, "remove", "tools") == [path]
        assert not Path(path).exists()
        refusal, *_ = shown_by(program, "remove", "tools", code=2)
        assert "no environment is called 'tools'" in refusal
        (refusal,) = shown_by(program, "remove", "cells", code=2)
        assert "not made by this library" in refusal

        assert shown_by(program, "prune") == [], "it was used a moment ago"
        (name,) = shown_by(program, "prune", "--unused-for", "0")
        assert name.startswith("env-")
        assert not Path(made).exists()
        assert "is not a number of days" in shown_by(
            program, "prune", "--unused-for", "soon", code=2
        )[-1]  # fmt: skip

    def test_one_in_use_is_not_removed(self, program: Program, index: Index) -> None:
        index.script(program.folder / "tool.py", "wl-beta")
        *_, path = shown_by(program, "create", "tools", "--from", "tool.py")
        code = "print('runs', flush=True); input()"
        with program.popen(
            "run", "tools", "--", "python", "-c", code, stdin=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"runs\n"
            (refusal,) = shown_by(program, "remove", "tools", code=1)
            assert "use" in refusal
            assert Path(path).is_dir()
            process.communicate(b"\n", timeout=30)
        assert shown_by(program, "remove", "tools") == [path]

    def test_one_that_cannot_be_made(self, program: Program, index: Index) -> None:
        index.script(program.folder / "tool.py", "wl-missing")
        assert "wl-missing" in "\n".join(shown_by(program, "create", "tool.py", code=1))

    def test_ctrl_c_while_one_is_made(self, program: Program, silent_server: str) -> None:
        """Nothing is left: neither an environment, nor a process that uses the terminal."""
        (program.folder / "tool.py").write_text(
            "# /// script\n"
            '# dependencies = ["wl-beta"]\n'
            "#\n"
            "# [tool.uv]\n"
            f'# index-url = "{silent_server}"\n'
            "# ///\n"
        )
        interrupt(program, "installing: ", "create", "tool.py")
        assert shown_by(program, "prune", "--unused-for", "0") == []


class TestDemo:
    def test_without_a_registry(self, program: Program, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            closed = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        lines = shown_by(
            program, "demo", "--out", tmp_path / "out", "--cache", tmp_path / "cache", code=3,
            PIP_INDEX_URL=closed, UV_DEFAULT_INDEX=closed, UV_INDEX_URL=closed, PIP_RETRIES="0",
            UV_HTTP_RETRIES="0",
        )  # fmt: skip
        assert lines[0] == "Two environments that no single one could hold:"
        assert any(line.startswith("wetlands-executor demo: ") for line in lines)

    def test_ctrl_c(self, program: Program, tmp_path: Path, silent_server: str) -> None:
        words = ("demo", "--out", tmp_path / "out", "--cache", tmp_path / "cache")
        urls = dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"), silent_server)
        shown = interrupt(program, "the PyPI packages", *words, **urls)
        assert "interrupted: nothing is left running" in shown

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["--workers", "0"], 2, "must be from 1 to 64"),
            (["--workers", "many"], 2, "is not a whole number"),
            (["--out", "functions.py"], 1, "functions.py"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, program: Program, words: list[str], code: int, said: str
    ) -> None:
        assert said in "\n".join(shown_by(program, "demo", *words, code=code))


