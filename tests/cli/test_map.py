"""``map`` as a process: items, results, failures, the joblog, and every way in which it ends."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Program
from tests.environments.conftest import Index
from wetlands_executor.cli.mapping.items import Item, Reading

HEADER = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def results(text: str) -> dict[object, object]:
    return {json.dumps(each["item"]): each.get("result", each.get("error")) for each in lines(text)}


def log(path: Path) -> list[list[str]]:
    first, *others = path.read_text(errors="surrogateescape").splitlines()
    assert first == HEADER
    return [line.split("\t") for line in others]


class TestItems:
    @pytest.mark.parametrize(
        ("words", "text", "expected"),
        [
            (["a", "b c"], None, [[["a"], None], [["b c"], None]]),
            (["-"], "a\n\nb", [[["a"], None], [["b"], None]]),
            (["--from", "-", "-0"], "a\nb\0c\0", [[["a\nb"], None], [["c"], None]]),
            (["--from", "list.txt"], None, [[["x"], None], [["y"], None]]),
            (["--colsep", "[;,] *", "-"], "a; b,c\n", [[["a", "b", "c"], None]]),
            (["--csv", "-"], 'a,"b\nc"\n\n', [[["a", "b\nc"], None]]),
            (["--csv", "--header", "-"], "n,m\n1,2\n", [[[], {"n": "1", "m": "2"}]]),
            (
                ["--json", "[1, 2]", '{"k": 3}', "4"], None,
                [[[1, 2], None], [[], {"k": 3}], [[4], None]],
            ),
            (["--kwargs", '{"k": 1}', "a"], None, [[["a"], {"k": 1}]]),
            (["*.glob"], None, [[["1.glob"], None], [["2.glob"], None]]),
            (["--", "-j", "--resume"], None, [[["-j"], None], [["--resume"], None]]),
        ],
    )  # fmt: skip
    def test_become_calls(
        self, program: Program, words: list[str], text: str | None, expected: list[object]
    ) -> None:
        (program.folder / "list.txt").write_text("x\ny\n")
        (program.folder / "echo.py").write_text("def f(*a, **k):\n    return [a, k or None]\n")
        for name in ("1.glob", "2.glob"):
            (program.folder / name).touch()
        done = program("map", "cells", "echo.py:f", "-j1", "-k", *words, input=text)
        assert (done.returncode, [each["result"] for each in lines(done.stdout)]) == (0, expected)

    def test_that_are_no_utf_8(self, program: Program) -> None:
        done = program("map", "cells", "functions.py:bytes_of", "-", input=b"a\xff.tif\n")
        assert done.returncode == 0, done.stderr
        (line,) = lines(done.stdout)
        assert line == {"seq": 1, "item": "a\udcff.tif", "result": list(b"a\xff.tif")}
        done = program("map", "cells", "functions.py:some_fail", "-", input=b"bad\xff\n")
        assert done.returncode == 1
        assert r"cannot read bad\udcff" in done.stderr

    def test_that_are_malformed_fail_alone(self, program: Program) -> None:
        done = program(
            "map", "cells", "functions.py:length", "--json", "-k", "-", input='"a"\n{x\n"ab"\n'
        )
        assert done.returncode == 1
        assert [each.get("result") for each in lines(done.stdout)] == [1, None, 2]
        assert "failed: {x: item 2 is not JSON" in done.stderr
        done = program(
            "map", "cells", "functions.py:add", "--csv", "--header", "-", input="a,b\n1\n"
        )
        assert done.returncode == 1
        assert "1 values for the 2 columns a, b" in done.stderr

    def test_texts_and_commands_are_one_line(self) -> None:
        assert Item(1, "a b", ()).words() == "'a b'"
        assert Item(1, "a\nb\t'", ()).words() == r"$'a\nb\t\''"
        assert Item(1, ["a", "b c"], ()).words() == "a 'b c'"
        assert Item(1, {"n": 1, "m": "x y"}, ()).words() == "n=1 m='x y'"
        assert Item(1, [1, None], ()).text == "[1, null]"

    def test_shuffled_are_the_same(self) -> None:
        words = [str(number) for number in range(100)]
        found = list(Reading(words=words, shuffle=True).items())
        assert sorted(int(item.shown) for item in found) == list(range(100))
        assert [item.shown for item in found] != words
        assert all(int(item.shown) + 1 == item.seq for item in found)

    def test_dry_run_starts_nothing(self, program: Program) -> None:
        done = program("map", "nowhere", "no.py:f", "--dry-run", "a b", "c")
        assert (done.returncode, done.stdout) == (0, "no.py:f 'a b'\nno.py:f c\n")


class TestFiles:
    @pytest.mark.parametrize(
        "options",
        [
            ["--from", "list.txt", "--results", "./list.txt"],
            ["--from", "list.txt", "--joblog", "list.txt"],
            ["--from", "list.txt", "--errors", "link.txt"],
            ["a", "--results", "functions.py"],
            ["a", "--results", "new.txt", "--joblog", "./new.txt"],
            ["a", "--joblog", "new.txt", "--results", "new.txt.errors"],
            ["list.txt", "--results", "list.txt"],
            ["a", "b", "./list.txt", "--joblog", "link.txt"],
            ["li*.txt", "--errors", "list.txt"],
            ["new.txt", "--results", "new.txt"],
            ["a", "--results", "once.py", "--initializer", "once.py:f"],
            ["--from", "items.txt", "--results", "list.txt"],
            ["--from", "items.txt", "--csv", "--joblog", "list.txt"],
        ],
    )
    def test_with_two_uses_are_refused(self, program: Program, options: list[str]) -> None:
        (program.folder / "list.txt").write_text("a\nb\n")
        (program.folder / "link.txt").symlink_to("list.txt")
        (program.folder / "items.txt").write_text("a.txt\n./list.txt\nno-list.txt\n")
        functions = (program.folder / "functions.py").read_text()
        done = program("map", "cells", "functions.py:length", *options)
        assert done.returncode == 255
        assert "are the same file; give another to" in done.stderr
        assert (program.folder / "list.txt").read_text() == "a\nb\n"
        assert (program.folder / "functions.py").read_text() == functions
        assert not (program.folder / "new.txt").exists()

    def test_that_are_made_are_no_items(self, program: Program) -> None:
        """Patterns are expanded before; a file may be called as standard input is."""
        for name in ("a.out", "-"):
            (program.folder / name).touch()
        options = ("-k", "-j1", "--quiet", "--joblog", "b.out", "--results", "c.out")
        done = program("map", "cells", "functions.py:length", "*.out", "[-]", *options)
        assert (done.returncode, done.stderr) == (0, "")
        found = lines((program.folder / "c.out").read_text())
        assert [each["item"] for each in found] == ["a.out", "./-"]

    @pytest.mark.skipif(sys.platform == "win32", reason="has no /dev/null")
    def test_may_be_devices(self, program: Program) -> None:
        done = program(
            "map", "cells", "functions.py:length", "abc", "--results", "/dev/null",
            "--joblog", "/dev/null", "--errors", "/dev/null",
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "")

    def test_that_may_not_be_opened(self, program: Program) -> None:
        """Where the tests run as root, without the right of root to open everything."""
        prefix: list[str] = []
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                pytest.skip("root may open everything, and there is no setpriv to forbid that")
            prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        closed = program.folder / "closed.log"
        closed.write_text(HEADER + "\n")
        closed.chmod(0)
        for words in (
            ("--joblog", "closed.log"), ("--joblog", "closed.log", "--resume"),
            ("--results", "closed.log"), ("--from", "closed.log"), ("--errors", "closed.log"),
        ):  # fmt: skip
            done = subprocess.run(
                [*prefix, *program.command("map", "cells", "functions.py:length", *words, "a")],
                cwd=program.folder, env=dict(program.variables), stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (255, ""), done.stderr
            assert "closed.log: Permission denied" in done.stderr
            assert "Traceback" not in done.stderr
        closed.chmod(0o600)
        assert closed.read_text() == HEADER + "\n"

    @pytest.mark.parametrize("order", [(), ("-k",)])
    def test_hold_what_a_pipe_gets(self, program: Program, order: tuple[str, ...]) -> None:
        run = ("map", "cells", "functions.py:some_fail", *order, *"abc", "bad", *"de")
        piped = program(*run)
        with open(program.folder / "out.jsonl", "wb") as stream:
            process = program.popen(*run, stdout=stream)
            _, err = process.communicate(timeout=60)
        written = (program.folder / "out.jsonl").read_text()
        named = program(*run, "--results", "named.jsonl", "--quiet")
        assert piped.returncode == process.returncode == named.returncode == 1
        found = [
            text.splitlines()
            for text in (piped.stdout, written, (program.folder / "named.jsonl").read_text())
        ]
        if not order:  # of completion, which is another one in each run
            found = [sorted(each) for each in found]
        assert found[0] == found[1] == found[2]
        assert len(found[0]) == 6
        assert named.stdout == ""


class TestWrong:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["cells", "functions.py:length"], "which items?"),
            (["cells", "functions.py:length", "--from", "no.txt"], "--from no.txt: No such file"),
            (["cells", "functions.py:length", "--from", "."], "--from .: Is a directory"),
            (["cells", "functions.py:length", "no*.tif"], "no file matches 'no*.tif'"),
            (["cells", "functions.py:missing", "a"], "has no 'missing'"),
            (["nowhere", "functions.py:length", "a"], "no environment is called"),
            (["cells", "functions.py:length", "a", "--resume"], "needs the --joblog"),
            (["cells", "functions.py:length", "a", "-j", "0"], "must be at least 1"),
            (["cells", "functions.py:length", "a", "--halt", "sometimes"], "soon,fail=N"),
            (["cells", "functions.py:length", "a", "--halt", "now,fail=0"], "at least 1"),
            (["cells", "functions.py:length", "a", "-j", "two"], "'two' is not a whole number"),
            (["cells", "functions.py:length", "a", "--retries=-1"], "must be at least 0"),
            (["cells", "functions.py:length", "a", "--retries", "-1"], "at least 0, not -1"),
            (["cells", "functions.py:length", "a", "-j", "-2"], "at least 1, not -2"),
            (["cells", "functions.py:length", "a", "--timeout", "-1.5"], "above 0, not -1.5"),
            (
                ["cells", "functions.py:length", "a", "--timeout", "soon"],
                "is not a number of seconds",
            ),
            (["cells", "functions.py:length", "a", "--timeout", "nan"], "above 0"),
            (["cells", "functions.py:length", "a", "--kwargs", "{x"], "is not JSON"),
            (["cells", "missing.py:f", "a"], "missing.py: No such file"),
            (["missing.py:f", "a"], "there is no file"),
            (["./broken", "functions.py:length", "a"], "exit code 3"),
            (["cells", "functions.py:length", "a", "--header"], "needs --csv or --colsep"),
            (["cells", "functions.py:length", "a", "--csv", "--json"], "not allowed with"),
            (["cells", "functions.py:length", "a", "--colsep", "["], "no regular expression"),
            (["cells", "functions.py:length", "a", "--env-var", "X"], "write NAME=VALUE"),
            (["cells", "functions.py:length", "a", "--joblog", "."], "--joblog .: Is a directory"),
            (
                ["cells", "functions.py:length", "a", "--errors", "no/such"],
                "--errors no/such: No such file",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "other.py", "--resume"],
                "is no joblog",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "half.log", "--resume"],
                "half.log:2 is no line",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "locked.log"],
                "--joblog locked.log: ",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "locked.log", "--resume"],
                "--joblog locked.log: ",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "no/run.log"],
                "--joblog no/run.log: No such file",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "functions.py/run.log"],
                "--joblog functions.py/run.log: Not a directory",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "binary.log", "--resume"],
                "is no joblog",
            ),
            (
                ["cells", "functions.py:length", "a", "--joblog", "number.log", "--resume-failed"],
                "number.log:3 is no line",
            ),
            (["cells", "functions.py:length", "a", "--results", "no/where"], "--results no/where"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said(self, program: Program, words: list[str], said: str) -> None:
        (program.folder / "half.log").write_text(f"{HEADER}\nwhat?\n")
        line = "1\t:\t1.000\t1.000\t0\t1\t0\t0\tfunctions.py:length b\n"
        (program.folder / "number.log").write_text(f"{HEADER}\n{line}{line.replace('0', 'no')}")
        (program.folder / "binary.log").write_bytes(bytes(range(256)) * 4)
        (program.folder / "locked.log").symlink_to("locked.log")  # a loop: not even root opens it
        before = (program.folder / "functions.py").read_bytes()
        (program.folder / "other.py").write_bytes(before)
        program.add_broken("broken")
        done = program("map", *words)
        assert (done.returncode, done.stdout) == (255, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        for name in ("functions.py", "other.py"):
            assert (program.folder / name).read_bytes() == before


class TestResults:
    def test_failures_are_told_and_counted(self, program: Program) -> None:
        items = ["one", "bad 1", "two", "bad 2"]
        done = program("map", "cells", "functions.py:some_fail", *items, "--joblog", "run.log")
        assert done.returncode == 2
        assert results(done.stdout) == {
            '"one"': "ONE", '"two"': "TWO", '"bad 1"': "ValueError: cannot read bad 1 second line",
            '"bad 2"': "ValueError: cannot read bad 2 second line",
        }  # fmt: skip
        told = dict(
            re.findall(r"failed: (.*?): ValueError: .* \(run\.log\.errors:(\d+)\)", done.stderr)
        )
        full = (program.folder / "run.log.errors").read_text().splitlines()
        for item, number in told.items():
            assert full[int(number) - 1].endswith(item)
        assert sorted(told) == ["bad 1", "bad 2"]
        assert sum("in some_fail" in line for line in full) == 2
        assert done.stderr.splitlines()[-1].startswith("2 done, 2 failed; ")
        entries = {entry[8]: entry for entry in log(program.folder / "run.log")}
        assert entries["functions.py:some_fail 'bad 1'"][6:8] == ["1", "0"]
        assert entries["functions.py:some_fail one"][6:8] == ["0", "0"]
        assert float(entries["functions.py:some_fail one"][2]) > 1e9

    def test_exit_codes_and_signals_in_the_joblog(self, program: Program) -> None:
        run = ("map", "cells", "--joblog", "run.log", "--quiet", "-j1")
        assert program(*run, "functions.py:exits", "3").returncode == 1
        assert log(program.folder / "run.log")[0][6:8] == ["3", "0"]
        assert program(*run, "functions.py:dies", "3", "4").returncode == 2
        assert [entry[6:8] for entry in log(program.folder / "run.log")] == [["0", "6"]] * 2
        done = program(*run, "functions.py:wait_for_ever", "3", "--timeout", "0.3")
        assert (done.returncode, done.stdout.count("TaskTimeoutError")) == (1, 1)
        # the stacks of the worker stand in the full text alone
        assert "stacks" not in done.stdout + done.stderr
        full = (program.folder / "run.log.errors").read_text()
        assert "its Python stacks at that moment" in full
        (entry,) = log(program.folder / "run.log")
        assert entry[6:8] == ["-1", "15"]
        assert float(entry[3]) >= 0.3

    def test_more_than_a_hundred_failures(self, program: Program) -> None:
        text = "".join(f"bad{number}\n" for number in range(150))
        done = program("map", "cells", "functions.py:some_fail", "-", "-j2", input=text)
        assert done.returncode == 101
        assert len(lines(done.stdout)) == 150

    def test_order_and_prints(self, program: Program) -> None:
        """What functions print is on standard error, in whole lines; results are in order."""
        items = [str(number) for number in range(60)]
        done = program("map", "cells", "functions.py:add", "--json", "-k", "-j3", *items)
        assert [each["result"] for each in lines(done.stdout)] == list(range(1, 61))
        assert done.stderr.count("adding\n") == 60

    def test_retries(self, program: Program) -> None:
        (program.folder / "once.py").write_text(
            "import os, pathlib\n"
            "def f(item):\n"
            "    path = pathlib.Path(f'tried-{item}')\n"
            "    if not path.exists():\n"
            "        path.touch()\n"
            "        os.abort() if item == 'abort' else 1 / 0\n"
            "    return item\n"
        )
        done = program("map", "cells", "once.py:f", "--retries", "1", "abort", "raise")
        assert (done.returncode, len(lines(done.stdout))) == (0, 2), done.stderr
        many = "".join(f"{number}\n" for number in range(500))
        done = program("map", "cells", "once.py:f", "--retries", "1", "-j2", "-", input=many)
        assert (done.returncode, len(lines(done.stdout))) == (0, 500), done.stderr
        assert (
            program("map", "cells", "functions.py:some_fail", "bad", "--retries", "2").returncode
            == 1
        )

    def test_halt(self, program: Program) -> None:
        text = "".join(f"bad{number}\n" for number in range(1000))
        run = ("map", "cells", "functions.py:some_fail", "-j1", "-")
        done = program(*run, "--halt", "soon,fail=2", input=text)
        assert 2 <= done.returncode < 100
        assert "halted: " in done.stderr
        done = program(*run, "--halt", "soon,fail=50%", input="a\nb\nbad\nbad\nbad\n" + text)
        assert 3 <= done.returncode < 100
        items = ("wait", "bad")
        (program.folder / "mixed.py").write_text(
            "import time\ndef f(item):\n    time.sleep(60) if item == 'wait' else 1 / 0\n"
        )
        done = program("map", "cells", "mixed.py:f", *items, "-j2", "--halt", "now,fail=1")
        assert (done.returncode, lines(done.stdout)[0]["item"]) == (1, "bad")

    def test_workers_are_set_up(self, program: Program) -> None:
        done = program(
            "map", "cells", "functions.py:loaded", "a", "b", "c", "d", "-j2", "--env-var",
            "DEVICE=gpu{slot}of{%}", "--initializer", "functions.py:load", "--preload", "csv,json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {str(each["result"]) for each in lines(done.stdout)} <= {
            "['gpu0of1']",
            "['gpu1of2']",
        }
        done = program(
            "map", "cells", "functions.py:loaded", "a", "--initializer", "functions.py:exits"
        )
        assert done.returncode == 255
        assert "missing 1 required positional argument" in done.stderr


class TestEnvironmentOfTheFile:
    def test_env_is_left_out_or_a_dash(self, program: Program, index: Index) -> None:
        """ENV is left out, or "-"; with "-" after the function the items come from the input."""
        index.script(
            program.folder / "tool.py", "wl-alpha<2",
            body="import importlib.metadata as m\n"
            "def f(item): return item + m.version('wl-alpha')\n",
        )  # fmt: skip
        for words, text in (
            (["tool.py:f", "a"], None), (["-", "tool.py:f", "a"], None),
            (["tool.py:f", "-"], "a\n"), (["-", "tool.py:f", "-"], "a\n"),
        ):  # fmt: skip
            done = program("map", *words, input=text)
            assert [each["result"] for each in lines(done.stdout)] == ["a1.0"], done.stderr

    @pytest.mark.parametrize("env", [[], ["-"]])
    def test_a_file_without_one(self, program: Program, env: list[str]) -> None:
        done = program("map", *env, "functions.py:length", "a")
        assert (done.returncode, done.stdout) == (255, "")
        assert "says nothing about its environment" in done.stderr

    def test_one_that_cannot_be_made(self, program: Program, index: Index) -> None:
        index.script(program.folder / "tool.py", "wl-missing", body="def f(item): pass\n")
        done = program("map", "tool.py:f", "a")
        assert (done.returncode, done.stdout) == (255, "")
        assert "wl-missing" in done.stderr
        assert "Traceback" not in done.stderr


class TestResume:
    def test_what_is_in_the_joblog_is_left_out(self, program: Program) -> None:
        files = ("--joblog", "run.log", "--results", "out.jsonl", "-j2", "--quiet")
        run = ("map", "cells", "functions.py:some_fail", *files)
        assert program(*run, "a", "b", "bad").returncode == 1
        done = program(*run, "--resume", "new", "a", "b", "b", "bad")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        found = [each["item"] for each in lines((program.folder / "out.jsonl").read_text())]
        assert sorted(map(str, found)) == ["a", "b", "b", "bad", "new"]
        done = program(*run, "--resume-failed", "--dry-run", "a", "bad")
        assert done.stdout == "functions.py:some_fail bad\n"
        assert program(*run, "--resume-failed", "new", "a", "b", "bad").returncode == 1
        assert len(log(program.folder / "run.log")) == 6
        assert program(*run, "a").returncode == 0
        assert len(log(program.folder / "run.log")) == 1, "without --resume it begins anew"

    def test_half_lines_of_a_killed_run(self, program: Program) -> None:
        files = ("--joblog", "run.log", "--results", "out.jsonl", "--quiet")
        run = ("map", "cells", "functions.py:note", *files)
        assert program(*run, "a", "b").returncode == 0
        whole = (program.folder / "out.jsonl").read_bytes()
        with (program.folder / "run.log").open("ab") as stream:
            stream.write(b"3\t:\t17")
        with (program.folder / "out.jsonl").open("ab") as stream:
            stream.write(b'{"seq": 3, "item": "c", "result": "c"}\n{"seq": 4, "it')
        assert program(*run, "--resume", "a", "b", "c").returncode == 0
        assert (
            program.folder / "out.jsonl"
        ).read_bytes() == whole + b'{"seq": 3, "item": "c", "result": "c"}\n'
        assert len(log(program.folder / "run.log")) == 3
        (program.folder / "run.log").write_text(HEADER[:20])
        assert program(*run, "--resume", "a").returncode == 0
        assert len(log(program.folder / "run.log")) == 1

    def test_two_at_once_are_refused(self, program: Program) -> None:
        run = ("map", "cells", "functions.py:wait", "--joblog", "run.log", "x")
        with program.popen(*run) as process:
            _await_file(program.folder / "runs-x", process)
            done = program(*run, "--resume")
            assert (done.returncode, "another map writes to it" in done.stderr) == (255, True)
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)

    @pytest.mark.parametrize("function", ["note", "note_slowly"])
    @pytest.mark.timeout(240)
    def test_killed_at_random_moments(
        self, program: Program, function: str, stress_rng: random.Random
    ) -> None:
        """No item of the joblog runs again, none is missing, none has two results."""
        total = 20_000 if function == "note" else 400
        items = [str(number) for number in range(total)]
        (program.folder / "list.txt").write_text("\n".join(items))
        run = (
            "map", "cells", f"functions.py:{function}", "--from", "list.txt", "-j2", "--quiet",
            "--joblog", "run.log", "--results", "out.jsonl", "--resume",
        )  # fmt: skip
        out, joblog, ran = (program.folder / name for name in ("out.jsonl", "run.log", "ran.txt"))
        for _ in range(10):
            logged = len(log(joblog)) if joblog.exists() and joblog.stat().st_size else 0
            counted = ran.read_text().split() if ran.exists() else []
            known = {entry[8].split()[-1] for entry in log(joblog)} if logged else set()
            wanted = logged + stress_rng.randrange(1, max(2, total // 12))
            with program.popen(*run) as process:
                _await_lines(joblog, wanted, process)
                workers = psutil.Process(process.pid).children() if process.poll() is None else []
                process.kill()
                process.communicate(timeout=30)
            assert psutil.wait_procs(workers, timeout=20)[1] == []
            again = set(ran.read_text().split()[len(counted) :]) & known
            assert not again, "items of the joblog ran again"
        done = program(*run)
        assert done.returncode == 0, done.stderr
        assert sorted(int(str(each["item"])) for each in lines(out.read_text())) == list(
            range(total)
        )
        assert len(log(joblog)) == total
        assert set(ran.read_text().split()) == set(items)


def _await_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        _turn()


def _await_lines(path: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file has so many lines, or the process has ended."""
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") > number:
            return
        _turn()


def _turn() -> None:
    """Let others run: a file of another process is no event."""
    import time

    time.sleep(0.002)


class TestWorkers:
    @pytest.mark.skipif(sys.platform != "linux", reason="modules are shared by fork on Linux only")
    def test_a_shared_preload_is_imported_once(self, program: Program) -> None:
        """And not by the workers, which have it from the process that they are forked from."""
        (program.folder / "model.py").write_text(
            "import os\nLOADED_BY = os.getpid()\n\n\n"
            "def f(item):\n    open('meeting', 'r' if item == 'a' else 'w').close()\n"
            "    return LOADED_BY, os.getpid()\n"
        )
        os.mkfifo(program.folder / "meeting")  # opened by both calls at once, or by none
        run = ("map", "cells", "model:f", "-j2", "--preload", "model", "a", "b")
        done = program(*run, "--share-preload")
        assert done.returncode == 0, done.stderr
        loaders, workers = zip(*(each["result"] for each in lines(done.stdout)), strict=True)
        assert (len(set(loaders)), len(set(workers))) == (1, 2)
        assert not set(loaders) & set(workers)
        done = program("map", "cells", "model:f", "a", "--share-preload")
        assert done.returncode == 255
        assert "preload" in done.stderr


class TestEnds:
    def test_ctrl_c_once(self, program: Program) -> None:
        """No new items; what runs is asked to stop, and what it returns is in the log."""
        run = (
            "map",
            "cells",
            "functions.py:wait",
            "-j2",
            "--joblog",
            "run.log",
            "a",
            "b",
            "c",
            "d",
        )
        with program.popen(*run) as process:
            for name in "ab":
                _await_file(program.folder / f"runs-{name}", process)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert results(out.decode()) == {'"a"': "a was asked", '"b"': "b was asked"}
        assert sorted(entry[0] for entry in log(program.folder / "run.log")) == ["1", "2"]
        assert b"Traceback" not in err
        done = program(*run, "--resume", "--dry-run")
        assert done.stdout == "functions.py:wait c\nfunctions.py:wait d\n"

    def test_ctrl_c_twice(self, program: Program) -> None:
        run = ("map", "cells", "functions.py:wait_for_ever", "-j1", "--joblog", "run.log", "a", "b")
        with program.popen(*run) as process:
            _await_file(program.folder / "runs-a", process)
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr is not None
            assert b"once more: it is killed" in process.stderr.readline()
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (130, b"")
        assert log(program.folder / "run.log") == []
        assert b"1 stopped" in err or b"2 stopped" in err
        assert b"Traceback" not in err
        assert not (program.folder / "runs-b").exists()

    @pytest.mark.parametrize("function", ["length", "note_slowly"])
    def test_head_downstream(self, program: Program, function: str) -> None:
        process = program.popen(
            "map", "cells", f"functions.py:{function}", "-", stdin=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(b"".join(b"%d\n" % number for number in range(5000)))
            process.stdin.flush()
            assert b"seq" in process.stdout.readline()
            process.stdout.close()
            # standard input is still open: the end does not wait for it
            assert process.wait(30) == 141
            assert b"Traceback" not in process.stderr.read()
        finally:
            process.kill()
            process.stdin.close()
            process.stderr.close()
            process.wait()

    def test_a_slow_producer_is_not_waited_for(self, program: Program) -> None:
        """Each item is called when it comes, not when there are more."""
        process = program.popen(
            "map", "cells", "functions.py:length", "-", "--quiet", stdin=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(100):
            process.stdin.write(b"x\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["seq"] == number + 1
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, b"", b"")

    @pytest.mark.slow
    @pytest.mark.timeout(180)
    def test_a_million_items_through_a_pipe(self, program: Program) -> None:
        """The memory of the program does not grow with the number of items."""
        code = "for number in range(1_000_000): print(number)"
        producer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process = program.popen(
            "map", "cells", "functions.py:nothing", "-", "-j2", "--quiet", stdin=producer.stdout
        )
        assert producer.stdout is not None
        assert process.stdout is not None
        producer.stdout.close()
        sizes = []
        number = 0
        for number, line in enumerate(process.stdout, 1):
            if number in (100_000, 950_000):
                sizes.append(psutil.Process(process.pid).memory_info().rss)
        out, err = process.communicate(timeout=30)
        producer.wait(30)
        assert (process.returncode, number, out, err) == (0, 1_000_000, b"", b"")
        assert sizes[1] - sizes[0] < 20e6, sizes


def test_on_a_terminal_results_stay_above_the_bars(program: Program) -> None:
    """Results, prints and failures in whole lines, and the cursor is shown at the end."""
    pexpect = pytest.importorskip("pexpect", reason="terminals are driven with pexpect")
    pyte = pytest.importorskip("pyte", reason="screens are read with pyte")
    pytest.importorskip("rich", reason="bars are drawn with rich (extra progress)")
    command = program.command("map", "cells", "functions.py:some_fail", "-j2", "a", "b", "bad")
    from tests.support.terminal import Dialogue

    child = Dialogue(
        command, cwd=program.folder, env=program.variables, timeout=30, dimensions=(24, 200)
    )
    screen = pyte.Screen(200, 24)
    try:
        child.expect(pexpect.EOF)
        pyte.Stream(screen).feed(child.before)
    finally:
        child.close()
    shown = [line.rstrip() for line in screen.display if line.strip()]
    assert child.exitstatus == 1
    assert len(lines("\n".join(line for line in shown if line.startswith("{")))) == 3
    assert sum(line.startswith("failed: bad: ValueError") for line in shown) == 1
    assert shown[-1].startswith("2 done, 1 failed; "), "the summary is the last line"
    assert not screen.cursor.hidden
