"""Scripts and shell text, run in one shell of the platform: the program text, and its start.

``sh`` or bash on POSIX, ``cmd.exe`` on Windows; ``shell`` decides what is run and judges what comes
of it. The texts of both can be looked at everywhere. The batch file follows the documentation of
cmd.exe and has never been run: this was written on Linux.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Final

from wetlands_executor.environment import _platform
from wetlands_executor.environment.processes import run_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wetlands_executor.environment.processes import Finished

#: What a shell sets or counts for itself: never taken from it.
SHELL_OWN: Final = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
#: What changes how a shell starts: kept from the shell that we start, given to the worker all the
#: same.
SHELL_STARTUP: Final = frozenset({"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS"})

# Bytes; Linux refuses a single argument of 128 KB (MAX_ARG_STRLEN).
_LONGEST_ARGUMENT: Final = 100_000
# Writes the variables of its own process, each ended by NUL. For the platforms whose `env` may not
# know `-0`.
_DUMP: Final = (
    "import os,sys\n"
    "d=getattr(os,'environb',None)\n"
    "if d is None: d={k.encode('utf-8','surrogatepass'):v.encode('utf-8','surrogatepass') for k,v "
    "in os.environ.items()}\n"
    "sys.stdout.buffer.write(b''.join(k+b'='+v+b'\\0' for k,v in d.items()))\n"
)


def parse_dump(dump: bytes) -> dict[str, str]:
    """Return the variables of a dump: ``name=value``, each ended by NUL."""
    pairs = (record.split(b"=", 1) for record in dump.split(b"\0") if b"=" in record)
    if _platform.WINDOWS:  # _DUMP writes UTF-8 there
        return {
            name.decode("utf-8", "surrogatepass").upper(): value.decode("utf-8", "surrogatepass")
            for name, value in pairs
        }
    return {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}


def shell_program(
    python: str, scripts: Sequence[str], lines: str, token: str, startup: str = ""
) -> str:
    """Return the text that runs scripts and lines in one POSIX shell and then writes the variables.

    Standard output is kept on descriptor 9 and closed for the scripts, so that only our own marks
    and the dump reach it: a mark is ``<token> <what>`` on a line of its own. What the scripts print
    goes to standard error. Paths and lines are quoted into the text, because a sourced script
    shares (and may change) the positional parameters and the variables.

    Args:
        python: an interpreter that can write its variables where ``env -0`` may not exist.
        scripts: absolute paths, in order.
        lines: further shell text, or empty.
        token: a word that no script can know.
        startup: the host's BASH_ENV, for bash; it may define functions that the lines call, such as
            ``module``.
    """
    env = shutil.which("env") if sys.platform == "linux" else None
    dump = (
        f"{shlex.quote(env)} -0" if env else f"{shlex.quote(python)} -I -S -c {shlex.quote(_DUMP)}"
    )
    # `set +eu`: one script's strictness must not end the shell in the next. `command`: a script may
    # define a function named printf.
    mark = f"set +eu; command printf '%s %s\\n' {token}"
    text = ["exec 9>&1 1>&2"]
    for number, script in enumerate(scripts):
        text += [f"{mark} {number} >&9", f". {shlex.quote(script)} 9>&-"]
    if lines:
        text += _with_functions(lines, startup, mark)
        # Not `eval ... || exit`: on the left of `||` a `set -e` of the user would have no effect.
        text += [
            f"{mark} lines >&9",
            f"eval {shlex.quote(lines)} 9>&-",
            "case $? in 0) ;; *) exit ;; esac",
        ]
    text += [
        f"{mark} dump >&9",
        f"{dump} >&9 || exit",
        f"command printf '\\n%s end\\n' {token} >&9",
        "exit 0",
    ]
    return "\n".join(text) + "\n"


def _with_functions(lines: str, startup: str, mark: str) -> list[str]:
    """Return the text that defines the functions which the lines may use.

    They are those of a script, or of a login shell, of the host.

    A startup file may set variables as well, and put its own folders before the environment's
    (BASH_ENV is often ``~/.bashrc``). So what was exported before it is restored after it; what is
    new stays.
    """
    sourced = []
    if startup:
        sourced.append((f"[ -r {shlex.quote(startup)} ]", shlex.quote(startup)))
    if re.search(r"(^|[\s;&|({])(module|ml)(\s|$)", lines):
        absent = "! command -v module >/dev/null 2>&1"
        sourced += [
            (f'{absent} && [ -n "${name}" ] && [ -r "${name}/init/bash" ]', f'"${name}/init/bash"')
            for name in ("LMOD_PKG", "MODULESHOME")
        ]
        sourced.append((f"{absent} && [ -r /etc/profile ]", "/etc/profile"))
    if not sourced:
        return []
    text = [f"{mark} startup >&9", "wetlands_exported=$(export -p)"]
    text += [f"if {condition}; then . {path} 9>&-; fi" for condition, path in sourced]
    return [*text, 'set +eu; eval "$wetlands_exported" 2>/dev/null; unset wetlands_exported']


def batch_program(folder: str, python: str, scripts: Sequence[str], lines: str, token: str) -> str:
    """Return the batch file that does for cmd.exe what ``shell_program`` does for a POSIX shell.

    Other files go to ``folder``.
    """

    def quoted(path: str) -> str:
        return '"' + path.replace("%", "%%") + '"'

    text = ["@echo off", "chcp 65001 >nul"]
    for number, script in enumerate(scripts):
        text += [f"echo {token} {number}", f"call {quoted(script)} 1>&2"]
    if lines:
        own = os.path.join(folder, "lines.bat")
        _write(own, "@echo off\n" + lines + "\n")
        text += [
            f"echo {token} lines",
            f"call {quoted(own)} 1>&2",
            "if errorlevel 1 exit %errorlevel%",
        ]
    dump = os.path.join(folder, "dump.py")
    _write(dump, _DUMP)
    text += [
        f"echo {token} dump",
        f"{quoted(python)} -I -S {quoted(dump)} || exit 1",
        "echo.",
        f"echo {token} end",
        "exit 0",
    ]
    return "\n".join(text) + "\n"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\r\n") as file:
        file.write(text)


def run_shell(
    python: str,
    scripts: Sequence[str],
    lines: str,
    token: str,
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
) -> Finished:
    """Run scripts and lines in one shell, in a process group of its own; see ``run_to_end``.

    Raises OSError if it cannot be started.
    """
    run = _run_batch if sys.platform == "win32" else _run_posix_shell
    return run(python, scripts, lines, token, env, seconds, answered)


def _run_batch(
    python: str,
    scripts: Sequence[str],
    lines: str,
    token: str,
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
) -> Finished:  # pragma: no cover - never run here
    with tempfile.TemporaryDirectory(prefix="wetlands-") as folder:
        program = os.path.join(folder, "activate.bat")
        _write(program, batch_program(folder, python, scripts, lines, token))
        argv = [os.environ.get("COMSPEC", "cmd.exe"), "/d", "/q", "/c", program]
        return run_to_end(argv, env, seconds, answered)


def _run_posix_shell(
    python: str,
    scripts: Sequence[str],
    lines: str,
    token: str,
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
) -> Finished:
    # The host's bash, not the environment's: a broken one there must not keep us from saying so.
    bash = shutil.which("bash")
    shell = [bash or shutil.which("sh") or "/bin/sh", *(("--noprofile", "--norc") if bash else ())]
    text = shell_program(python, scripts, lines, token, env.get("BASH_ENV", "") if bash else "")
    passed = {name: value for name, value in env.items() if name not in SHELL_STARTUP}
    if len(os.fsencode(text)) < _LONGEST_ARGUMENT:
        return run_to_end([*shell, "-c", text], passed, seconds, answered)
    read, write = os.pipe()
    try:
        return run_to_end(
            [*shell, f"/dev/fd/{read}"],
            passed,
            seconds,
            answered,
            feed=(read, write, os.fsencode(text)),
        )
    finally:
        os.close(read)
        os.close(write)
