"""Every platform difference of this sub-package, and nothing else.

The layouts (which folders, which file names) are chosen by ``WINDOWS``, so that a test can look at the other platform's answer;
calls into the operating system are chosen by ``sys.platform``, which the type checker understands. The Windows and macOS branches
follow the documentation of conda, venv and cmd.exe and have never been run: this was written on Linux.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WINDOWS: bool = os.name == "nt"

#: What a shell sets or counts for itself: never taken from it.
SHELL_OWN: Final = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
#: What changes how a shell starts: kept from the shell that we start, given to the worker all the same.
SHELL_STARTUP: Final = frozenset({"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS"})

# Seconds; poll() takes a C int of milliseconds.
_LONGEST_WAIT: Final = 2_000_000.0
# Writes the variables of its own process, each ended by NUL. For the platforms whose `env` may not know `-0`.
_DUMP: Final = (
    "import os,sys\n"
    "d=getattr(os,'environb',None)\n"
    "if d is None: d={k.encode('utf-8','surrogatepass'):v.encode('utf-8','surrogatepass') for k,v in os.environ.items()}\n"
    "sys.stdout.buffer.write(b''.join(k+b'='+v+b'\\0' for k,v in d.items()))\n"
)


def script_suffix() -> str:
    """Return the suffix of the activation scripts that this platform's shell can run."""
    return ".bat" if WINDOWS else ".sh"


def conda_path_dirs(prefix: str) -> list[str]:
    """Return what conda puts on PATH for a prefix, in its order (conda/activate.py, ``_get_path_dirs``)."""
    if not WINDOWS:
        return [os.path.join(prefix, "bin")]
    parts = [("Library", "mingw-w64", "bin"), ("Library", "usr", "bin"), ("Library", "bin"), ("Scripts",), ("bin",)]
    return [prefix, *(os.path.join(prefix, *part) for part in parts)]


def venv_path_dirs(prefix: str) -> list[str]:
    """Return what the ``activate`` script of a virtual environment puts on PATH."""
    return [os.path.join(prefix, "Scripts" if WINDOWS else "bin")]


def python_path_dirs(python: str) -> list[str]:
    """Return what belongs on PATH for a plain interpreter: its folder, on Windows also the folder of installed commands."""
    folder = os.path.dirname(python)
    return [folder, os.path.join(folder, "Scripts")] if WINDOWS else [folder]


def interpreters(prefix: str) -> list[str]:
    """Return where the interpreter of a prefix can be, the usual place first."""
    if WINDOWS:  # conda and python.org: in the prefix; venv: in Scripts; msys2: in bin
        return [os.path.join(prefix, *part) for part in (("python.exe",), ("Scripts", "python.exe"), ("bin", "python.exe"))]
    return [os.path.join(prefix, "bin", name) for name in ("python", "python3")]


def prefix_of_interpreter(python: str) -> str:
    """Return the prefix that an interpreter's place alone suggests: above ``bin`` or ``Scripts``, else its own folder."""
    folder = os.path.dirname(python)
    return os.path.dirname(folder) if os.path.basename(folder).lower() in ("bin", "scripts") else folder


def is_executable(path: str) -> bool:
    """Tell whether a file can be started as a program."""
    if WINDOWS:  # os.access knows no execute permission there; the suffix decides
        return os.path.isfile(path) and os.path.splitext(path)[1].lower() in (".exe", ".bat", ".cmd")
    return os.path.isfile(path) and os.access(path, os.X_OK)


def has_separator(text: str) -> bool:
    """Tell whether a text is a path rather than a name: it has a separator, or on Windows a drive."""
    return bool(re.search(r"[\\/]|^[A-Za-z]:", text)) if WINDOWS else "/" in text


def normalized(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of variables in which a name has one spelling (Windows does not tell ``Path`` from ``PATH``)."""
    return {name.upper(): value for name, value in environ.items()} if WINDOWS else dict(environ)


def common_roots() -> list[str]:
    """Return where the installers of conda and mamba put their root prefix unless told otherwise."""
    names = ["miniconda3", "miniforge3", "mambaforge", "anaconda3"]
    roots = [os.path.join(os.path.expanduser("~"), name) for name in names]
    if WINDOWS:
        folders = (os.environ.get("LOCALAPPDATA", ""), os.environ.get("PROGRAMDATA", r"C:\ProgramData"))
        return roots + [os.path.join(folder, name) for folder in folders if folder for name in names]
    return [*roots, "/opt/conda"]


def user_envs_dirs() -> list[str]:
    """Return the folders of environments that conda keeps for a user whose root prefix is read-only."""
    folders = [os.path.join(os.path.expanduser("~"), ".conda", "envs")]
    if WINDOWS and os.environ.get("LOCALAPPDATA"):
        folders.append(os.path.join(os.environ["LOCALAPPDATA"], "conda", "conda", "envs"))
    return folders


def system_condarcs() -> list[str]:
    """Return the folders of the machine's own conda settings, least important first."""
    return [r"C:\ProgramData\conda"] if WINDOWS else ["/etc/conda", "/var/lib/conda"]


def lost_in_shell(name: str) -> bool:
    """Tell whether a variable that a shell did not give back was lost rather than unset.

    A shell drops names that are no identifiers (``BASH_FUNC_f%%``, ``ProgramFiles(x86)``); macOS removes ``DYLD_*`` whenever a
    program of the system, such as its shell, is started.
    """
    return not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or (sys.platform == "darwin" and name.startswith("DYLD_"))


def parse_dump(dump: bytes) -> dict[str, str]:
    """Return the variables of a dump: ``name=value``, each ended by NUL."""
    pairs = (record.split(b"=", 1) for record in dump.split(b"\0") if b"=" in record)
    if WINDOWS:  # _DUMP writes UTF-8 there
        return {name.decode("utf-8", "surrogatepass").upper(): value.decode("utf-8", "surrogatepass") for name, value in pairs}
    return {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}


def shell_program(python: str, scripts: Sequence[str], lines: str, token: str) -> str:
    """Return the text that runs scripts and lines in one POSIX shell and then writes the variables.

    Standard output is kept on descriptor 9 and closed for the scripts, so that only our own marks and the dump reach it: a mark
    is ``<token> <what>`` on a line of its own. What the scripts print goes to standard error. Paths and lines are quoted into the
    text, because a sourced script shares (and may change) the positional parameters and the variables.

    Args:
        python: an interpreter that can write its variables where ``env -0`` may not exist.
        scripts: absolute paths, in order.
        lines: further shell text, or empty.
        token: a word that no script can know.
    """
    env = shutil.which("env") if sys.platform == "linux" else None
    dump = f"{shlex.quote(env)} -0" if env else f"{shlex.quote(python)} -I -S -c {shlex.quote(_DUMP)}"
    # `set +eu`: one script's strictness must not end the shell in the next. `command`: a script may define a function named
    # printf.
    mark = f"set +eu; command printf '%s %s\\n' {token}"
    text = ["exec 9>&1 1>&2"]
    for number, script in enumerate(scripts):
        text += [f"{mark} {number} >&9", f". {shlex.quote(script)} 9>&-"]
    if lines:
        # Not `eval ... || exit`: on the left of `||` a `set -e` of the user would have no effect.
        text += [f"{mark} lines >&9", f"eval {shlex.quote(lines)} 9>&-", "case $? in 0) ;; *) exit ;; esac"]
    text += [f"{mark} dump >&9", f"{dump} >&9 || exit", f"command printf '\\n%s end\\n' {token} >&9", "exit 0"]
    return "\n".join(text) + "\n"


def batch_program(folder: str, python: str, scripts: Sequence[str], lines: str, token: str) -> str:
    """Return the batch file that does for cmd.exe what ``shell_program`` does for a POSIX shell; other files go to ``folder``."""

    def quoted(path: str) -> str:
        return '"' + path.replace("%", "%%") + '"'

    text = ["@echo off", "chcp 65001 >nul"]
    for number, script in enumerate(scripts):
        text += [f"echo {token} {number}", f"call {quoted(script)} 1>&2"]
    if lines:
        own = os.path.join(folder, "lines.bat")
        _write(own, "@echo off\n" + lines + "\n")
        text += [f"echo {token} lines", f"call {quoted(own)} 1>&2", "if errorlevel 1 exit %errorlevel%"]
    dump = os.path.join(folder, "dump.py")
    _write(dump, _DUMP)
    text += [f"echo {token} dump", f"{quoted(python)} -I -S {quoted(dump)} || exit 1", "echo.", f"echo {token} end", "exit 0"]
    return "\n".join(text) + "\n"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\r\n") as file:
        file.write(text)


@contextmanager
def shell_process(
    python: str, scripts: Sequence[str], lines: str, token: str, env: Mapping[str, str], out: IO[bytes], err: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the shell that runs the scripts, in a process group of its own; whatever is left of the group dies on an error."""
    with tempfile.TemporaryDirectory(prefix="wetlands-") if WINDOWS else _no_folder() as folder:
        if sys.platform == "win32":
            program = os.path.join(folder, "activate.bat")
            _write(program, batch_program(folder, python, scripts, lines, token))
            argv = [os.environ.get("COMSPEC", "cmd.exe"), "/d", "/q", "/c", program]
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, creationflags=flags)
        else:
            # The host's bash, not the environment's: a broken one there must not keep us from saying so.
            bash = shutil.which("bash")
            shell = bash or shutil.which("sh") or "/bin/sh"
            argv = [shell, *(("--noprofile", "--norc") if bash else ()), "-c", shell_program(python, scripts, lines, token)]
            process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            yield process
        except BaseException:  # also KeyboardInterrupt: nobody else knows of this process
            kill_group(process)
            process.wait()
            raise


@contextmanager
def _no_folder() -> Iterator[str]:
    yield ""


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, and everything in that group."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        process.kill()
    else:
        # Race: the leader may have been reaped already; a group that still has members keeps its number, an empty one is gone.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
            pass


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for the end of a process; return its exit code, or None when the time is over.

    Waits for the process and not for the end of its output: a daemon that a script leaves behind may keep the files open.
    """
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError:  # an old kernel, or no descriptor left: the wait below serves
            pass
        else:
            try:
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                if not poll.poll(min(max(0.0, seconds), _LONGEST_WAIT) * 1000):
                    return None
            finally:
                os.close(descriptor)
            return process.wait()
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
