"""Every command but ``map``, each as a process of its own: what it prints, and its exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.environments.conftest import Index
from wetlands_executor.cli.commands import COMMANDS

pexpect = pytest.importorskip("pexpect", reason="terminals are driven with pexpect (extra test)")
pytest.importorskip("pyte")
from tests.support.terminal import Dialogue  # noqa: E402 - needs both

#: Options of an interactive shell that reads no files of the user's, and lines to begin with.
SHELLS = {
    "bash": (["--norc"], ['eval "$(wetlands-executor --print-completion bash)"']),
    "zsh": (
        ["-f"],
        ["autoload -U compinit; compinit -u", 'eval "$(wetlands-executor --print-completion zsh)"'],
    ),
    "fish": (["--no-config"], ["wetlands-executor --print-completion fish | source"]),
}


class TestHelp:
    def test_the_module_and_the_script_say_the_same(self, program: Program) -> None:
        script = Path(sys.executable).with_name("wetlands-executor")
        if not script.exists():
            pytest.skip("the package is not installed with its script")
        ours = program("--help")
        theirs = subprocess.run(
            [script, "--help"], capture_output=True, text=True, env=dict(program.variables)
        )
        assert (ours.returncode, ours.stdout) == (0, theirs.stdout)
        words = ["call", "cells", "functions:add", "3"]
        theirs = subprocess.run(
            [script, *words], capture_output=True, text=True, env=dict(program.variables),
            cwd=program.folder,
        )  # fmt: skip
        assert program(*words).stdout == theirs.stdout == "4\n", "modules of this folder are found"

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["bogus"], 2, "bogus"),
            (["call"], 2, "which function?"),
            (["call", "cells"], 2, "'cells' is no function"),
            (["call", "cells", "functions.py:add", "1", "--kwargs", "{x"], 2, "is not JSON"),
            (["call", "cells", "functions.py:add", "1", "--kwargs", "[1]"], 2, "not a JSON object"),
            (["call", "cells", "functions.py:add", "--timeout", "-1"], 2, "above 0"),
            (["call", "cells", "functions.py:add", "--output", "a.tif"], 2, ".npy, .json, .txt"),
            (["call", "cells", "missing.py:add"], 2, "missing.py"),
            (["call", "missing.py:add"], 2, "there is no file"),
            (["call", "functions.py:add"], 2, "says nothing about its environment"),
            (["call", "functions.py:add"], 2, "give the environment first"),
            (["call", "math:hypot"], 2, "give the environment first"),
            (["call", "nowhere", "math:hypot"], 2, "no environment is called 'nowhere'"),
            (["call", "cells", "functions.py:no_such"], 1, "has no 'no_such'"),
            (["call", "cells", "no_such_module:f"], 1, "No module named 'no_such_module'"),
            (
                ["call", "cells", "functions.py:add", "--initializer", "functions.py:no"], 1,
                "no 'no'",
            ),
            (
                ["call", "cells", "functions.py:add", "a.json", "--output", "./a.json"], 2,
                "argument a.json are the same",
            ),
            (["call", "./broken", "math:hypot", "3", "4"], 1, "exit code 3"),
            (["lock", "a.txt", "--output", "a.txt"], 2, "the file a.txt are the same file"),
            (["lock", "cells", "--output", "a.txt/b"], 2, "--output a.txt/b: Not a directory"),
            (
                ["call", "cells", "functions.py:add", "1", "--output", "no/a.json"], 2,
                "--output no/a.json: No such file",
            ),
            (["run", "cells"], 125, "which command?"),
            (["run", "nowhere", "true"], 125, "no environment is called 'nowhere'"),
            (["run", "cells", "no-such-command"], 127, "'no-such-command' on the PATH"),
            (["run", "cells", "./functions.py"], 126, "cannot be executed"),
            (["lock", "nowhere"], 2, "no environment is called 'nowhere'"),
            (["remove", "cells"], 2, "not made by this library"),
            (["prune", "--unused-for", "soon"], 2, "is not a number of days"),
            (["create", "x"], 2, "what shall 'x' hold?"),
            (["create", "x", "--pypi", "a=="], 2, "which is no requirement"),
            (["create", "missing.yml"], 2, "missing.yml: No such file"),
            (["create", "a.yml", "--from", "b.yml"], 2, "give one name"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said(
        self, program: Program, words: list[str], code: int, said: str
    ) -> None:
        (program.folder / "a.txt").touch()
        (program.folder / "a.json").touch()
        program.add_broken("broken")
        done = program(*words)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--help"], "commands:"),
            *(([command, "--help"], f"usage: wetlands-executor {command}") for command in COMMANDS),
            (["envs", "--no-size"], "cells"),
            (["call", "cells", "math:hypot", "3", "4"], "5.0"),
            (["lock", "cells"], "# Python "),
            (["doctor", "cells"], "cells"),
        ],
    )
    def test_on_a_narrow_terminal(self, program: Program, words: list[str], said: str) -> None:
        """Each command with a terminal of 40 columns as its standard streams."""
        command = program.command(*words)
        child = Dialogue(
            command, cwd=program.folder, env=program.variables, timeout=60, dimensions=(24, 40)
        )
        try:
            child.expect(pexpect.EOF)
        finally:
            child.close()
        assert child.exitstatus == 0, child.before
        assert said in child.before
        assert "Traceback" not in child.before


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_a_shell_gets_its_code(self, program: Program, shell: str) -> None:
        done = program("--print-completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        assert "wetlands-executor" in done.stdout

    def test_words_are_completed(self, program: Program) -> None:
        done = program("--print-completion", "bash")
        line = "wetlands-executor map --resu"
        script = f"""{done.stdout}
wetlands-executor() {{ "{sys.executable}" -m wetlands_executor "$@"; }}
COMP_LINE="{line}" COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDBREAKS=" "
export COMP_LINE COMP_POINT COMP_TYPE
_python_argcomplete wetlands-executor
echo "${{COMPREPLY[@]}}"
"""
        answered = subprocess.run(
            ["bash", "-c", script], cwd=program.folder, env=dict(program.variables),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert {"--resume", "--resume-failed"} <= set(answered.stdout.split()), answered


    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_real_shell_completes(self, program: Program, shell: str) -> None:
        """Typed at the prompt of a shell: what docs/command-line.md tells, then TAB."""
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        script = program.folder / "bin" / "wetlands-executor"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wetlands_executor "$@"\n')
        script.chmod(0o755)
        variables = {**program.variables, "TERM": "xterm"}
        variables["PATH"] = f"{script.parent}{os.pathsep}{variables['PATH']}"
        options, load = SHELLS[shell]
        child = Dialogue(
            [shell, *options], cwd=program.folder, env=variables, timeout=60, dimensions=(24, 100)
        )
        try:
            for line in load:
                child.sendline(line)
            child.sendline("echo LOA''DED")
            child.expect("LOADED")
            child.send("wetlands-executor map --resume-f\t")
            child.expect("--resume-failed")
            child.send("\x15wetlands-executor doc\t")
            child.expect("wetlands-executor.*doctor")
        finally:
            child.close()


class TestCall:
    def test_arguments_and_results(self, program: Program) -> None:
        """JSON, else text; what the function prints is not its result."""
        done = program("call", "cells", "functions.py:add", "3", "4")
        assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "adding\n")
        done = program("call", "cells", "functions.py:add", "größe", "--kwargs", '{"b": "!"}')
        assert json.loads(done.stdout) == "größe!"
        done = program("call", "cells", "--format", "repr", "functions.py:add", "--", "-3", "1")
        assert done.stdout == "-2\n"
        done = program("call", "cells", "functions.py:odd", "x")
        assert json.loads(done.stdout) == {
            "path": "a", "set": [1], "nan": None, "object": "<class 'str'>", "bytes": "b'x'",
        }  # fmt: skip
        done = program("call", "cells", "functions.py:with_task", "x")
        assert (done.stdout, done.stderr) == ('"functions.py:with_task"\n', "")

    def test_results_in_files(self, program: Program) -> None:
        np = pytest.importorskip("numpy")
        done = program("call", program.python, "numpy:arange", "3", "--output", "a.npy")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert np.load(program.folder / "a.npy").tolist() == [0, 1, 2]
        assert program("call", program.python, "numpy:arange", "3").stdout == "[0, 1, 2]\n"
        assert program("call", "cells", "math:hypot", "3", "4", "--output", "a.txt").stdout == ""
        assert (program.folder / "a.txt").read_text() == "5.0\n"

    def test_failures(self, program: Program) -> None:
        done = program("call", "cells", "functions.py:some_fail", "bad")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.endswith("ValueError: cannot read bad\nsecond line\n")
        assert "in some_fail" in done.stderr
        assert "in_worker" not in done.stderr
        done = program("call", "cells", "functions.py:exits", "3")
        assert (done.returncode, done.stdout) == (1, "")
        done = program("call", "cells", "functions.py:dies", "3")
        assert (done.returncode, done.stdout) == (1, "")
        assert "SIGABRT" in done.stderr
        done = program("call", "cells", "time:sleep", "60", "--timeout", "0.2")
        assert (done.returncode, done.stdout) == (1, "")
        assert "0.2 s" in done.stderr

    def test_the_initializer_runs_first(self, program: Program) -> None:
        done = program(
            "call", "cells", "functions.py:loaded", "x", "--initializer", "functions.py:load",
            DEVICE="7",
        )  # fmt: skip
        assert json.loads(done.stdout) == ["7"]
        done = program("call", "cells", "functions.py:add", "--initializer", "functions.py:exits")
        assert done.returncode == 1
        assert "missing 1 required positional argument" in done.stderr

    def test_the_functions_module_may_be_called_as_ours(self, program: Program) -> None:
        """The folder of the shipped file holds no module that could take another's place."""
        (program.folder / "target.py").write_text("answer = 42\n")
        (program.folder / "run.py").write_text("from target import *\ndef f(): return answer\n")
        assert program("call", "cells", "run.py:f").stdout == "42\n"


class TestRun:
    def test_streams_and_exit_codes_pass_through(self, program: Program) -> None:
        done = program(
            "run", "cells", "--", "python", "-c",
            "import os, sys; print(os.environ['CONDA_PREFIX'], sys.stdin.read()); sys.exit(7)",
            input="from here",
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (7, "")
        prefix, text = done.stdout.rstrip("\n").split(" ", 1)
        assert (Path(prefix).name, text) == ("cells", "from here")
        done = program("run", "cells", "echo", "--", "-n")
        assert done.stdout == "-- -n\n", "only the first word may be our --"

    def test_signals_reach_the_command_itself(self, program: Program) -> None:
        code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
        process = program.popen("run", "cells", "--", "python", "-c", code)
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGTERM
        with program.popen("run", "cells", "yes") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(20) == -signal.SIGPIPE

    def test_a_terminal_stays_a_terminal(self, program: Program) -> None:
        command = program.command("run", "cells", "--", "python", "-q", "-i")
        child = Dialogue(command, cwd=program.folder, env=program.variables, timeout=20)
        try:
            child.expect(">>> ")
            child.sendline("import sys, os; sys.stdin.isatty(), os.tcgetpgrp(0) == os.getpgrp()")
            child.expect(r"\(True, True\)")
            child.sendline("import time; print('as' + 'leep'); time.sleep(60)")
            child.expect("asleep")
            child.sendintr()
            child.expect("KeyboardInterrupt")
            child.sendline("exit(3)")
            child.expect(pexpect.EOF)
        finally:
            child.close()
        assert child.exitstatus == 3


class TestEnvironments:
    def test_a_life(self, program: Program, index: Index) -> None:
        """Made of a file, listed, run, called, locked, made of the lock, removed, pruned."""
        body = (
            "def version():\n    import importlib.metadata as m\n    return m.version('wl-beta')\n"
        )
        index.script(program.folder / "tool.py", "wl-beta", body=body)
        done = program("call", "tool.py:version")
        assert (done.returncode, done.stdout) == (0, '"1.0"\n')
        assert "installing:" in done.stderr
        done = program("call", "-", "tool.py:version")
        assert (done.stdout, done.stderr) == ('"1.0"\n', ""), "it is there now"

        done = program("create", "tools", "--from", "tool.py", "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        prefix = Path(done.stdout.strip())
        assert prefix.name == "tools"
        done = program("run", "tools", "--", "python", "-c", "import sys; print(sys.prefix)")
        assert done.stdout.strip() == str(prefix)
        assert program("run", "tool.py", "true").returncode == 0

        rows = {row["name"]: row for row in json.loads(program("envs", "--json").stdout)}
        assert rows["tools"]["path"] == str(prefix)
        assert rows["tools"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert rows["tools"]["size"] > 1000
        assert rows["cells"]["kind"] == "conda"
        assert str(prefix) in program("envs", "--no-size").stdout

        done = program("lock", "tools", "--output", "pylock.toml")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert "wl-beta" in (program.folder / "pylock.toml").read_text()
        assert program("lock", "tools").stdout == (program.folder / "pylock.toml").read_text()

        done = program("create", "tools", "--from", "tool.py", "--pypi", "wl-alpha<2", "--quiet")
        assert done.returncode == 2
        assert "--update" in done.stderr
        done = program(
            "create", "tools", "--from", "tool.py", "--pypi", "wl-alpha<2", "--update", "--quiet"
        )
        assert done.returncode == 0, done.stderr

        done = program("remove", "tools")
        assert (done.returncode, done.stdout.strip()) == (0, str(Path(done.stdout.strip())))
        assert "tools" not in program("envs", "--no-size").stdout
        pruned = program("prune", "--unused-for", "0").stdout.split()
        assert [name.startswith("env-") for name in pruned] == [True]

    def test_that_cannot_be_made(self, program: Program, index: Index) -> None:
        index.script(program.folder / "tool.py", "wl-missing", body="def f(): pass\n")
        for words in (["create", "tool.py"], ["call", "tool.py:f"]):
            done = program(*words)
            assert (done.returncode, done.stdout) == (1, "")
            assert "wl-missing" in done.stderr
        assert program("run", "tool.py", "true").returncode == 125

    def test_head_ends_it_cleanly(self, program: Program) -> None:
        with program.popen("envs", stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(20) == 141


def test_doctor_and_demo_are_commands(program: Program) -> None:
    assert json.loads(program("doctor", "cells", "--json").stdout)["ok"]
    assert program("doctor", "nowhere").returncode == 2
    assert "--refresh" in program("demo", "--help").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_is_interrupted_leaves_nothing_behind(
    program: Program, number: signal.Signals
) -> None:
    code = (
        "import os\ndef f():\n    print(os.getpid(), flush=True)\n    import time; time.sleep(60)\n"
    )
    (program.folder / "slow.py").write_text(code)
    process = program.popen("call", "cells", "slow.py:f")
    assert process.stderr is not None
    worker = int(process.stderr.readline())
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM that is ignored")
@pytest.mark.parametrize("command", ["call", "map"])
def test_an_ignored_sigterm_stays_ignored(program: Program, command: str) -> None:
    """The signal is sent to the program by the function, which then returns."""
    (program.folder / "term.py").write_text(
        "import os, signal\n\n\n"
        "def f(item):\n    os.kill(os.getppid(), signal.SIGTERM)\n    return os.getppid()\n"
    )
    words = program.command(command, "cells", "term.py:f", "a")
    with subprocess.Popen(
        ["sh", "-c", "trap '' TERM; exec \"$@\"", "sh", *words],
        cwd=program.folder, env=dict(program.variables), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        out, err = process.communicate(timeout=60)
    assert (process.returncode, str(process.pid) in out) == (0, True), err
