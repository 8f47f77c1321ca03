"""Activation, launch specs and commands, on fake prefixes.

The only processes are the shells and commands that are the subject.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.integration import fakes
from wetlands_executor.environment import Environment, LaunchSpec, processes, shell_programs
from wetlands_executor.environment.activate import CACHE_SIZE, activation, forget
from wetlands_executor.errors import ActivationError

SYSTEM_PATH = os.environ["PATH"]


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fakes.isolate(monkeypatch, tmp_path / "home")
    forget()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return fakes.conda(tmp_path / "envs" / "it's é env")


@pytest.fixture(params=["bash", "sh"])
def any_shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both shells that may run the scripts: bash, and what is there where bash is not."""
    real = shutil.which
    if real(request.param) is None:
        pytest.skip(f"no {request.param}")
    if request.param == "sh":
        monkeypatch.setattr(
            shutil,
            "which",
            lambda name, **options: None if name == "bash" else real(name, **options),
        )
    return str(request.param)


def script(prefix: Path, name: str, text: str) -> Path:
    path = prefix / "etc" / "conda" / "activate.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def declare(prefix: Path, *, state: object = None, **files: object) -> None:
    folder = prefix / "etc" / "conda" / "env_vars.d"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    if state is not None:
        (prefix / "conda-meta" / "state").write_text(json.dumps(state))


def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


# ---------------------------------------------------------------------------------- without a shell


def test_current_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    no_process(monkeypatch)
    env = activation(Environment.find(None))
    assert env == dict(os.environ)
    env["X"] = "1"
    assert "X" not in activation(Environment.find(None))


def test_conda_without_scripts(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_process(monkeypatch)
    old, base = "/r/envs/old", "/r"
    host = {
        "PATH": f"/v/bin:{old}/bin:/r/condabin:/usr/bin:{old}/bin/sub::{prefix}/bin:{old}/bin/",
        "CONDA_PREFIX": old, "CONDA_PREFIX_1": base, "CONDA_DEFAULT_ENV": "old",
        "CONDA_PROMPT_MODIFIER": "(old) ", "CONDA_SHLVL": "2",
        "CONDA_STACKED_2": "true", "__CONDA_SHLVL_1_X": "x", "VIRTUAL_ENV": "/v",
        "VIRTUAL_ENV_PROMPT": "v",
        "PYTHONHOME": "/h", "PYTHONPATH": "/p", "PYTHONEXECUTABLE": "/e",
        "__PYVENV_LAUNCHER__": "/l",
        "PIXI_PROJECT_NAME": "p", "PIXI_ENVIRONMENT_NAME": "e", "PIXI_IN_SHELL": "1",
        "CONDA_EXE": "/r/bin/conda", "CONDA_PYTHON_EXE": "/r/bin/python", "PIXI_HOME": "/px",
        "MAMBA_ROOT_PREFIX": "/m", "OTHER": "é\n",
    }  # fmt: skip
    assert activation(Environment.find(prefix), environ=host) == {
        "PATH": f"{prefix}/bin:/r/condabin:/usr/bin:{old}/bin/sub:",
        "CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": prefix.name,
        "CONDA_PROMPT_MODIFIER": f"({prefix.name}) ", "CONDA_SHLVL": "1",
        "CONDA_EXE": "/r/bin/conda", "CONDA_PYTHON_EXE": "/r/bin/python", "PIXI_HOME": "/px",
        "MAMBA_ROOT_PREFIX": "/m", "OTHER": "é\n",
    }  # fmt: skip


def test_conda_default_env(tmp_path: Path) -> None:
    def default(path: Path) -> str:
        return activation(Environment.find(path), environ={})["CONDA_DEFAULT_ENV"]

    assert default(fakes.conda(tmp_path / "envs" / "a")) == "a"
    assert default(fakes.conda(tmp_path / "alone")) == str(tmp_path / "alone")
    assert default(fakes.conda(tmp_path / "home" / "miniforge3")) == "base"
    assert default(fakes.conda(tmp_path / "proj" / ".pixi" / "envs" / "gpu")) == "proj:gpu"


def test_declared_variables(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_process(monkeypatch)
    declare(
        prefix,
        b={"SHARED": "b", "lower": "x"},
        a={"SHARED": "a", "ONLY_A": "1", "GONE": "pkg", "NUMBER": 3},
        state={
            "version": 1,
            "env_vars": {
                "ONLY_A": "state",
                "GONE": "***unset***",
                "HOST": "***unset***",
                "PYTHONPATH": "/kept",
            },
        },
    )
    env = activation(Environment.find(prefix), environ={"HOST": "host", "PYTHONPATH": "/leak"})
    assert (env["SHARED"], env["ONLY_A"], env["LOWER"], env["NUMBER"], env["PYTHONPATH"]) == (
        "b",
        "state",
        "x",
        "3",
        "/kept",
    )
    assert "GONE" not in env
    assert env["HOST"] == "host"


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"A": {"x": 1}}', '{"A=B": "x"}', '{"": "x"}', '{"A": "\\u0000"}']
)
def test_unusable_declarations(prefix: Path, content: str) -> None:
    declare(prefix)
    file = prefix / "etc" / "conda" / "env_vars.d" / "bad.json"
    file.write_text(content)
    with pytest.raises(ActivationError, match=r"bad\.json"):
        activation(Environment.find(prefix))


def test_venv_and_plain_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_process(monkeypatch)
    venv = fakes.venv(tmp_path / "v")
    host = {
        "PATH": "/old/bin:/usr/bin",
        "VIRTUAL_ENV": "/old",
        "PYTHONHOME": "/h",
        "CONDA_PREFIX": "/c",
        "A": "1",
    }
    assert activation(Environment.find(venv), environ=host) == {
        "PATH": f"{venv}/bin:/usr/bin",
        "VIRTUAL_ENV": str(venv),
        "A": "1",
    }
    python = fakes.interpreter(tmp_path / "p" / "bin" / "python")
    assert activation(Environment.find(python), environ=host) == {
        "PATH": f"{python.parent}:/usr/bin",
        "A": "1",
    }


# ------------------------------------------------------------------------------------- with a shell


def test_values_survive_the_shell(prefix: Path, any_shell: str) -> None:
    script(
        prefix,
        "b.sh",
        "export ORDER=${ORDER}b\nexport NAME='a\nb'\\''\"é\t '\nunset REMOVED\nNOT_EXPORTED=1\n",
    )
    script(
        prefix,
        "a.sh",
        "export ORDER=a; echo noise; echo more >&2; export "
        "PYTHONPATH=$CONDA_PREFIX/x:$PYTHONPATH; cd /; set -eu\n",
    )
    script(prefix, "c.fish", "set -x FISH 1\n")
    script(prefix, ".hidden.sh", "export HIDDEN=1\n")
    raw = "\udcff\n"  # a byte that is no UTF-8, as the system hands it to Python
    host = {
        "PATH": SYSTEM_PATH,
        "REMOVED": "1",
        "KEPT": raw,
        "odd.name": "1",
        "BASH_FUNC_f%%": "() {  :\n}",
        "PWD": "/p",
        "SHLVL": "7",
    }
    host.update(ENV="/nonexistent", BASH_ENV="/nonexistent", PYTHONPATH="/leak")
    lines = ("if true; then", "export EXTRA=$ORDER", "fi")
    env = activation(Environment.find(prefix), lines, host)
    added = {"ORDER": "ab", "NAME": "a\nb'\"é\t ", "PYTHONPATH": f"{prefix}/x:", "EXTRA": "ab"}
    without = activation(Environment.find(fakes.conda(prefix.parent / "bare")), environ=host)
    del without["REMOVED"]
    expected = {name: value.replace("bare", prefix.name) for name, value in without.items()} | added
    assert env == expected


def test_lines_run_for_every_kind(tmp_path: Path) -> None:
    for what in (
        None,
        fakes.venv(tmp_path / "v"),
        fakes.interpreter(tmp_path / "p" / "bin" / "python"),
    ):
        assert activation(Environment.find(what), ["export A=1"])["A"] == "1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo why >&2; exit 3", r"b\.sh. ended the shell with exit code 3.*\nIt wrote:\nwhy"),
        ("exit 0", r"b\.sh. ended the shell with exit code 0.*\n.*wrote nothing"),
        ("kill -9 $$", r"b\.sh. ended the shell by signal 9"),
        ("exec true", r"b\.sh. ended the shell with exit code 0"),
        (
            "echo out; set -e; false; true",
            r"b\.sh. ended the shell with exit code 1.*\nIt wrote:\nout",
        ),
        ("trap 'exit 5' EXIT", r"could not be read back, the shell ended with exit code 5"),
    ],
)
def test_script_that_ends_the_shell(prefix: Path, any_shell: str, text: str, expected: str) -> None:
    script(prefix, "a.sh", "export A=1")
    script(prefix, "b.sh", text)
    script(prefix, "c.sh", "export C=1")
    with pytest.raises(ActivationError, match=expected):
        activation(Environment.find(prefix), environ={"PATH": SYSTEM_PATH})


@pytest.mark.parametrize(
    "line", ["exit 3", "false", "nonexistent-command", "if", "set -e; false; true"]
)
def test_line_that_fails(tmp_path: Path, any_shell: str, line: str) -> None:
    environment = Environment.find(fakes.venv(tmp_path / "v"))
    with pytest.raises(ActivationError, match="the extra lines"):
        activation(environment, ["export A=1", line])
    assert activation(environment, ["export A=1", "false || true"])["A"] == "1"


def test_last_command_of_a_script_may_fail(prefix: Path, any_shell: str) -> None:
    script(prefix, "a.sh", 'export A=1; [ -n "$NOTHING" ] && export B=1')
    assert activation(Environment.find(prefix))["A"] == "1"


def test_script_cannot_write_into_the_answer(prefix: Path, any_shell: str) -> None:
    script(
        prefix,
        "a.sh",
        "printf() { echo mine; }; env() { echo mine; }; echo X=1 >&9; set -- 1 "
        "2 3; IFS=x; export A=1; PATH=/nowhere",
    )
    env = activation(Environment.find(prefix))
    assert (env["A"], env["PATH"]) == ("1", "/nowhere")
    assert "X" not in env


def test_time_limit_ends_the_whole_group(prefix: Path) -> None:
    script(prefix, "slow.sh", "echo started >&2; sleep 600 & sleep 600\n")
    before = time.monotonic()
    with pytest.raises(
        ActivationError,
        match=r"slow\.sh. did not end within 0\.3 s\nIt "
        r"wrote:\nstarted",
    ):
        activation(Environment.find(prefix), timeout=0.3)
    # the leak check of conftest.py finds a `sleep` that was left
    assert time.monotonic() - before < 10


def test_daemon_of_a_script_does_not_hold_us_up(prefix: Path, tmp_path: Path) -> None:
    script(prefix, "a.sh", f"sleep 600 & echo $! > '{tmp_path}/pid'; export A=1")
    before = time.monotonic()
    try:
        assert activation(Environment.find(prefix), timeout=30)["A"] == "1"
        assert time.monotonic() - before < 15
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_wait_without_a_pidfd(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, as by a sandbox.

    From 3.15 on the standard library's own ``subprocess`` expects the function to be there.
    """

    def refuse(*_args: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    script(prefix, "a.sh", "export A=1")
    assert activation(Environment.find(prefix))["A"] == "1"
    with pytest.raises(ActivationError, match="did not end within"):
        activation(Environment.find(prefix), ["sleep 600"], timeout=0.1)


def test_dump_by_python(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What macOS does, where ``env`` may not know ``-0``."""
    monkeypatch.setattr(sys, "platform", "darwin")
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to(sys.executable)
    script(prefix, "a.sh", "export A='x\ny=é'; export PYTHONHOME=/broken")
    env = activation(Environment.find(prefix), environ={"PATH": SYSTEM_PATH, "DYLD_X": "1"})
    assert (env["A"], env["DYLD_X"]) == ("x\ny=é", "1")


def test_batch_program(tmp_path: Path) -> None:
    text = shell_programs.batch_program(
        str(tmp_path), r"C:\e\python.exe", [r"C:\50%\a.bat"], "set A=1", "T"
    )
    lines = text.splitlines()
    assert lines[2:4] == ["echo T 0", r'call "C:\50%%\a.bat" 1>&2']
    assert lines[-3:] == ["echo.", "echo T end", "exit 0"]
    assert (tmp_path / "lines.bat").read_bytes() == b"@echo off\r\nset A=1\r\n"


# -------------------------------------------------------------------------------------------- cache


def test_cache(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    path = script(prefix, "a.sh", f"echo run >> '{runs}'; export A=1")
    environment = Environment.find(prefix)

    def count() -> int:
        return len(runs.read_text().splitlines())

    first = activation(environment)
    first["A"] = "changed by the caller"
    assert activation(environment)["A"] == "1"
    assert count() == 1
    monkeypatch.setenv("SOMETHING", "new")
    assert activation(environment)["SOMETHING"] == "new"
    assert count() == 2
    activation(environment, ["export B=1"])
    assert count() == 3
    path.write_text(path.read_text().replace("A=1", "A=2"))
    assert activation(environment)["A"] == "2"
    assert count() == 4
    declare(prefix, x={"D": "1"})
    assert activation(environment)["D"] == "1"
    assert count() == 5
    script(prefix, "b.sh", "export C=1")
    assert activation(environment)["C"] == "1"
    assert count() == 6
    for number in range(CACHE_SIZE + 1):
        activation(environment, [f"export N={number}"])
    activation(environment)
    assert count() == 6 + CACHE_SIZE + 2


def test_failures_are_not_cached(prefix: Path, tmp_path: Path) -> None:
    script(prefix, "a.sh", f"if [ ! -e '{tmp_path}/ready' ]; then exit 1; fi; export A=1")
    with pytest.raises(ActivationError):
        activation(Environment.find(prefix))
    (tmp_path / "ready").touch()
    assert activation(Environment.find(prefix))["A"] == "1"


def test_concurrent_first_callers(prefix: Path) -> None:
    script(prefix, "a.sh", "export A=$((1)); export B=x$A")
    environment = Environment.find(prefix)
    results: list[dict[str, str]] = []
    barrier = threading.Barrier(4)

    def call() -> None:
        barrier.wait()
        results.append(activation(environment))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [activation(environment)] * 4
    assert len({id(result) for result in results}) == 4


# ------------------------------------------------------------------------------------------- launch


def test_launch_spec(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(prefix, "a.sh", "export A=1")
    monkeypatch.setenv("PYTHONHOME", "/h")
    monkeypatch.setenv("CONDA_SHLVL", "1")
    environment = Environment.find(prefix)
    spec = environment.launch_spec(cwd=tmp_path, worker_env={"A": "2", "W": "é\n"})
    assert (spec.argv, spec.cwd, spec.environment) == (
        (str(prefix / "bin" / "python"),),
        str(tmp_path),
        environment,
    )
    assert (spec.env["A"], spec.env["W"]) == ("2", "é\n")
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert isinstance(spec, LaunchSpec)
    assert environment.launch_spec(activate=["export A=9"]).env["A"] == "9"
    plain = environment.launch_spec(activate=False, worker_env={"W": "1"})
    assert plain.env == {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONHOME", "CONDA_SHLVL")
    } | {"W": "1"}
    assert plain.cwd is None


def test_launch_spec_checks_its_arguments(prefix: Path, tmp_path: Path) -> None:
    environment = Environment.find(prefix)
    with pytest.raises(FileNotFoundError, match="nothing"):
        environment.launch_spec(cwd=tmp_path / "nothing")
    with pytest.raises(NotADirectoryError, match="history"):
        environment.launch_spec(cwd=prefix / "conda-meta" / "history")
    for bad, error in [
        ({3: "x"}, TypeError),
        ({"THREE": 3}, TypeError),
        ({"A=B": "x"}, ValueError),
        ({"": "x"}, ValueError),
    ]:
        with pytest.raises(error, match=repr(next(iter(bad)))):
            environment.launch_spec(worker_env=bad)
    with pytest.raises(ValueError, match="'NAME'") as caught:
        environment.launch_spec(worker_env={"NAME": "secret\0"})
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="mapping"):
        environment.launch_spec(worker_env=["A=1"])
    for lines in ("export A=1", None, 3, [3]):
        with pytest.raises(TypeError):
            environment.launch_spec(activate=lines)
    with pytest.raises(ValueError, match="NUL"):
        environment.launch_spec(activate=["a\0b"])


# ----------------------------------------------------------------------------------------- commands


def test_run_looks_on_the_path_of_the_environment(prefix: Path, tmp_path: Path) -> None:
    command = fakes.interpreter(prefix / "bin" / "wex-tool")
    command.write_text('#!/bin/sh\necho "$0|$1|$A|$CONDA_PREFIX"; pwd\n')
    script(prefix, "a.sh", "export A=1")
    environment = Environment.find(prefix)
    done = environment.run(
        ["wex-tool", "x y"],
        cwd=tmp_path,
        env={"A": "over"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{command}|x y|over|{prefix}", str(tmp_path)]
    assert environment.run("wex-tool", capture_output=True, text=True).stdout.startswith(
        f"{command}||1|"
    )
    assert environment.run(
        'wex-tool "$A"', shell=True, capture_output=True, text=True
    ).stdout.startswith(f"{command}|1|1|")
    with environment.popen(
        [Path("wex-tool")], stdout=subprocess.PIPE, text=True, activate=["export A=2"]
    ) as process:
        assert process.communicate(timeout=30)[0].startswith(f"{command}||2|")
    (tmp_path / "local").symlink_to(command)
    assert environment.run(
        ["./local"], cwd=tmp_path, capture_output=True, text=True
    ).stdout.startswith("./local||1|")
    with pytest.raises(subprocess.CalledProcessError):
        environment.run(["false"], check=True)


def test_missing_command_names_command_and_environment(prefix: Path) -> None:
    environment = Environment.find(prefix)
    for argv in (["wex-nothing", "x"], ["./wex-nothing"], "wex-nothing"):
        with pytest.raises(FileNotFoundError) as caught:
            environment.run(argv)
        assert caught.value.filename.endswith("wex-nothing")
        assert environment.label in str(caught.value)
    with pytest.raises(ValueError, match="argv is empty"):
        environment.run([])
    with pytest.raises(FileNotFoundError):
        environment.run(["wex-nothing"], activate=False)
    with pytest.raises(TypeError, match="'A'"):
        environment.popen(["true"], env={"A": 1})


def test_interrupted_activation_leaves_no_shell(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(prefix, "a.sh", "exec sleep 600")

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_listen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        activation(Environment.find(prefix))


# ------------------------------------------------------------------ folders, lengths, startup files


def test_no_temporary_folder(prefix: Path, any_shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", refuse)
    monkeypatch.setattr("tempfile._get_default_tempdir", refuse)
    script(prefix, "a.sh", "export A=1")
    assert activation(Environment.find(prefix), ["export B=2"])["B"] == "2"


def test_much_output_does_not_fill_a_pipe(prefix: Path, any_shell: str) -> None:
    script(
        prefix,
        "a.sh",
        "i=0; while [ $i -lt 20000 ]; do echo 'a line of noise'; i=$((i+1)); done; export A=1",
    )
    assert activation(Environment.find(prefix))["A"] == "1"
    script(prefix, "b.sh", "echo the last words >&2; exit 7")
    with pytest.raises(ActivationError, match="exit code 7(.|\n)*the last words"):
        activation(Environment.find(prefix))


@pytest.mark.parametrize("size", [99_000, 101_000, 131_072, 3_000_000])
def test_long_lines(tmp_path: Path, any_shell: str, size: int) -> None:
    environment = Environment.find(fakes.venv(tmp_path / "v"))
    lines = [f": '{'x' * 1000}'" for _ in range(size // 1000)]
    assert activation(environment, [*lines, "export A='1'"])["A"] == "1"
    with pytest.raises(ActivationError, match="the extra lines"):
        activation(environment, [*lines, "false"])
    assert (
        activation(environment, [f"export A=${{#B}} B='{'y' * size}' && B= && export A=2"])["A"]
        == "2"
    )


def test_exit_status_that_the_program_throws_away(prefix: Path, any_shell: str) -> None:
    script(prefix, "a.sh", "export A=1")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert activation(Environment.find(prefix))["A"] == "1"
        script(prefix, "b.sh", "exit 3")
        with pytest.raises(
            ActivationError,
            match=r"b\.sh. ended the shell (with exit code 3|in "
            r"an unknown way)",
        ):
            activation(Environment.find(prefix))
    finally:
        signal.signal(signal.SIGCHLD, before)


MODULE = 'module() { export LOADED="$2"; export PATH="/module/$2:$PATH"; }\n'


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("way", ["BASH_ENV", "exported", "MODULESHOME", "LMOD_PKG"])
def test_module(prefix: Path, tmp_path: Path, way: str) -> None:
    script(prefix, "a.sh", "export A=1")
    host = {"PATH": SYSTEM_PATH}
    if way == "exported":
        host["BASH_FUNC_module%%"] = MODULE.removeprefix("module").strip()
    else:
        file = tmp_path / "init" / "bash"
        file.parent.mkdir()
        file.write_text(
            "export PATH=/first:$PATH; export NEW=1; export CONDA_PREFIX=/wrong\n" + MODULE
        )
        host[way] = str(file if way == "BASH_ENV" else tmp_path)
    environment = Environment.find(prefix)
    env = activation(environment, ["module load cuda/12"], host)
    assert env["LOADED"] == "cuda/12"
    assert env["PATH"] == f"/module/cuda/12:{prefix}/bin:{SYSTEM_PATH}"
    assert (env["CONDA_PREFIX"], env["A"], env.get("NEW")) == (
        str(prefix),
        "1",
        None if way == "exported" else "1",
    )
    if way == "BASH_ENV":
        assert env["BASH_ENV"] == host["BASH_ENV"]
        file.write_text(MODULE.replace("LOADED", "AGAIN"))
        assert activation(environment, ["module load cuda/12"], host)["AGAIN"] == "cuda/12"
        file.write_text("echo why >&2; exit 4")
        with pytest.raises(ActivationError, match="the startup file.*exit code 4(.|\n)*why"):
            activation(environment, ["true"], host)
        assert activation(environment, environ=host)["A"] == "1"  # no lines, no startup file


def test_names_of_declared_variables(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(prefix, a={"lower": "1", "GIVEN": "x"}, state={"env_vars": {"Mixed": "2"}})
    environment = Environment.find(prefix)
    env = activation(environment, environ={})
    assert (env["LOWER"], env["MIXED"], env["GIVEN"]) == ("1", "2", "x")
    settings = tmp_path / "home" / ".condarc"
    settings.write_text("envvars_force_uppercase: false  # why\n")
    env = activation(environment, environ={})
    assert (env["lower"], env["Mixed"], env["GIVEN"]) == ("1", "2", "x")
    assert "LOWER" not in env
    (prefix / ".condarc").write_text("envvars_force_uppercase: true\n")
    assert activation(environment, environ={})["LOWER"] == "1"
    monkeypatch.setenv("CONDA_ENVVARS_FORCE_UPPERCASE", "false")
    assert activation(environment, environ={})["lower"] == "1"
