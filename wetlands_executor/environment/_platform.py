"""Every platform difference of this sub-package, and nothing else.

The layouts (which folders, which file names) are chosen by ``WINDOWS``, so that a test can look at
the other platform's answer; calls into the operating system are chosen by ``sys.platform``, which
the type checker understands. The Windows and macOS branches follow the documentation of conda, venv
and cmd.exe and have never been run: this was written on Linux.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wetlands_executor import children
from wetlands_executor.system import (
    POLLERR,
    POLLIN,
    POLLOUT,
    SIGCHLD,
    SIGKILL,
    killpg,
    poll,
    set_blocking,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WINDOWS: bool = os.name == "nt"

#: What a shell sets or counts for itself: never taken from it.
SHELL_OWN: Final = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
#: What changes how a shell starts: kept from the shell that we start, given to the worker all the
#: same.
SHELL_STARTUP: Final = frozenset({"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS"})

# Seconds; poll() takes a C int of milliseconds.
_LONGEST_WAIT: Final = 2_000_000.0
# Bytes; Linux refuses a single argument of 128 KB (MAX_ARG_STRLEN).
_LONGEST_ARGUMENT: Final = 100_000
# Bytes of stderr that are kept.
_TAIL: Final = 65536
# Writes the variables of its own process, each ended by NUL. For the platforms whose `env` may not
# know `-0`.
_DUMP: Final = (
    "import os,sys\n"
    "d=getattr(os,'environb',None)\n"
    "if d is None: d={k.encode('utf-8','surrogatepass'):v.encode('utf-8','surrogatepass') for k,v "
    "in os.environ.items()}\n"
    "sys.stdout.buffer.write(b''.join(k+b'='+v+b'\\0' for k,v in d.items()))\n"
)


class Finished(NamedTuple):
    """What came of a process.

    Attributes:
        code: its exit code, negative for a signal; None if that is lost (``children.WHY_LOST``).
        ended: False if it did not end in time, and was killed.
        out: what it has written to its standard output.
        err: the last of what it has written to its standard error.
    """

    code: int | None
    ended: bool
    out: bytes
    err: bytes


def script_suffix() -> str:
    """Return the suffix of the activation scripts that this platform's shell can run."""
    return ".bat" if WINDOWS else ".sh"


def conda_path_dirs(prefix: str) -> list[str]:
    """Return what conda puts on PATH for a prefix (conda/activate.py, ``_get_path_dirs``)."""
    if not WINDOWS:
        return [os.path.join(prefix, "bin")]
    parts = [
        ("Library", "mingw-w64", "bin"),
        ("Library", "usr", "bin"),
        ("Library", "bin"),
        ("Scripts",),
        ("bin",),
    ]
    return [prefix, *(os.path.join(prefix, *part) for part in parts)]


def venv_path_dirs(prefix: str) -> list[str]:
    """Return what the ``activate`` script of a virtual environment puts on PATH."""
    return [os.path.join(prefix, "Scripts" if WINDOWS else "bin")]


def python_path_dirs(python: str) -> list[str]:
    """Return what belongs on PATH for a plain interpreter.

    Its folder, on Windows also the folder of installed commands.
    """
    folder = os.path.dirname(python)
    return [folder, os.path.join(folder, "Scripts")] if WINDOWS else [folder]


def interpreters(prefix: str) -> list[str]:
    """Return where the interpreter of a prefix can be, the usual place first."""
    if WINDOWS:  # conda and python.org: in the prefix; venv: in Scripts; msys2: in bin
        return [
            os.path.join(prefix, *part)
            for part in (("python.exe",), ("Scripts", "python.exe"), ("bin", "python.exe"))
        ]
    return [os.path.join(prefix, "bin", name) for name in ("python", "python3")]


def prefix_of_interpreter(python: str) -> str:
    """Return the prefix that an interpreter's place alone suggests.

    Above ``bin`` or ``Scripts``, else its own folder.
    """
    folder = os.path.dirname(python)
    return (
        os.path.dirname(folder)
        if os.path.basename(folder).lower() in ("bin", "scripts")
        else folder
    )


def is_executable(path: str) -> bool:
    """Return True if a file can be started as a program."""
    if WINDOWS:  # os.access knows no execute permission there; the suffix decides
        return os.path.isfile(path) and os.path.splitext(path)[1].lower() in (
            ".exe",
            ".bat",
            ".cmd",
        )
    return os.path.isfile(path) and os.access(path, os.X_OK)


def has_separator(text: str) -> bool:
    """Return True if a text is a path rather than a name.

    It has a separator, or on Windows a drive.
    """
    return bool(re.search(r"[\\/]|^[A-Za-z]:", text)) if WINDOWS else "/" in text


def normalized(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of variables in which a name has one spelling.

    Windows does not tell ``Path`` from ``PATH``.
    """
    return {name.upper(): value for name, value in environ.items()} if WINDOWS else dict(environ)


def common_roots() -> list[str]:
    """Return where the installers of conda and mamba put their root prefix by default."""
    names = ["miniconda3", "miniforge3", "mambaforge", "anaconda3"]
    roots = [os.path.join(os.path.expanduser("~"), name) for name in names]
    if WINDOWS:
        folders = (
            os.environ.get("LOCALAPPDATA", ""),
            os.environ.get("PROGRAMDATA", r"C:\ProgramData"),
        )
        return roots + [
            os.path.join(folder, name) for folder in folders if folder for name in names
        ]
    return [*roots, "/opt/conda"]


def user_envs_dirs() -> list[str]:
    """Return the environment folders that conda keeps for a user whose root prefix is read-only."""
    folders = [os.path.join(os.path.expanduser("~"), ".conda", "envs")]
    if WINDOWS and os.environ.get("LOCALAPPDATA"):
        folders.append(os.path.join(os.environ["LOCALAPPDATA"], "conda", "conda", "envs"))
    return folders


def system_condarcs() -> list[str]:
    """Return the folders of the machine's own conda settings, least important first."""
    return [r"C:\ProgramData\conda"] if WINDOWS else ["/etc/conda", "/var/lib/conda"]


def lost_in_shell(name: str) -> bool:
    """Return True if a variable that a shell did not give back was lost rather than unset.

    A shell drops names that are no identifiers (``BASH_FUNC_f%%``, ``ProgramFiles(x86)``); macOS
    removes ``DYLD_*`` whenever a program of the system, such as its shell, is started.
    """
    return not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or (
        sys.platform == "darwin" and name.startswith("DYLD_")
    )


def parse_dump(dump: bytes) -> dict[str, str]:
    """Return the variables of a dump: ``name=value``, each ended by NUL."""
    pairs = (record.split(b"=", 1) for record in dump.split(b"\0") if b"=" in record)
    if WINDOWS:  # _DUMP writes UTF-8 there
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


def run_to_end(
    argv: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
    *,
    cwd: str | None = None,
    linger: float | None = None,
    feed: tuple[int, int, bytes] | None = None,
) -> Finished:
    """Run a process in a process group of its own until it ends, and read what it writes.

    Needs no file.

    Waits for the process and not for the end of its output: a daemon that it leaves behind may keep
    the pipes open. If it does not end in time, or ends without the answer, its whole group is
    killed.

    Args:
        argv: the command.
        env: its variables.
        seconds: how long it may take.
        answered: what its output holds if all went well.
        cwd: its folder; None is that of this process.
        linger: seconds that it may take to end after it has answered; None is as long as all of it.
        feed: a pipe (reading end, writing end) that it inherits, and what is written to it.

    Raises:
        OSError: it cannot be started.
    """
    run = _run_with_files if sys.platform == "win32" else _run_with_pipes
    return run(argv, env, seconds, answered, cwd, linger, feed)


def _run_with_pipes(
    argv: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
    cwd: str | None,
    linger: float | None,
    feed: tuple[int, int, bytes] | None,
) -> Finished:
    process = subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
        pass_fds=(feed[0],) if feed else (),
    )
    pidfd = -1
    try:
        if hasattr(os, "pidfd_open"):
            # an old kernel, a sandbox; or it has ended, and the kernel has collected it
            with suppress(OSError):
                pidfd = os.pidfd_open(process.pid)
        ended, out, err = _listen(process, pidfd, seconds, answered, linger, feed)
        if not ended or not answered.search(out):
            kill_group(process)
        code = children.collect(process, pidfd)
        return Finished(code, ended, out, err)
    except BaseException:  # also KeyboardInterrupt: no other code knows of this process
        kill_group(process)
        children.collect(process, pidfd)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if pidfd >= 0:
            os.close(pidfd)


def _listen(
    process: subprocess.Popen[bytes],
    pidfd: int,
    seconds: float,
    answered: re.Pattern[bytes],
    linger: float | None,
    feed: tuple[int, int, bytes] | None,
) -> tuple[bool, bytes, bytes]:
    """Return whether a process has ended in time, and what it has written.

    All of stdout, the end of stderr.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    found = {out: bytearray(), err: bytearray()}
    ready = poll()
    for fd in (out, err):
        set_blocking(fd, False)
        ready.register(fd, POLLIN)
    if pidfd >= 0:
        ready.register(pidfd, POLLIN)
    waiting = memoryview(feed[2]) if feed else memoryview(b"")
    if feed:
        set_blocking(feed[1], False)
        ready.register(feed[1], POLLOUT)
    deadline = time.monotonic() + seconds
    quick = linger is None
    ended = False
    while not ended:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        for fd, event in ready.poll(min(left, _LONGEST_WAIT) * 1000):
            if fd == pidfd:
                ended = True
            elif feed and fd == feed[1]:
                try:
                    waiting = (
                        waiting[os.write(fd, waiting) :] if not event & POLLERR else waiting[:0]
                    )
                except BlockingIOError:
                    continue
                if not waiting:
                    ready.unregister(fd)  # the program says itself when it is at its end
            elif not _take(fd, found[fd]):
                ready.unregister(fd)
                if fd == out and pidfd < 0:
                    ended = _wait(process, deadline)
                    if not ended:
                        deadline = 0.0
        del found[err][:-_TAIL]
        if not quick and linger is not None and answered.search(found[out]):
            quick = True
            deadline = min(deadline, time.monotonic() + linger)
    for fd, data in found.items():
        _take(fd, data)
    return ended, bytes(found[out]), bytes(found[err])


def _take(fd: int, data: bytearray) -> bool:
    """Read what is there; False at the end."""
    try:
        while part := os.read(fd, 65536):
            data += part
    except BlockingIOError:
        return True
    return False


def _wait(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end of a process that has closed its output; True if it came in time.

    Where there is no pidfd.
    """
    try:
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    if process.returncode == 0 and not _collects_by_itself():
        # `Popen.wait` says 0 as well if the status was thrown away
        children.note_status(process, children.LOST)
    return True


def _collects_by_itself() -> bool:
    """Return True if neither the kernel nor a handler of the program collects ended children."""
    handler: object = signal.getsignal(SIGCHLD)
    return handler in (signal.SIG_DFL, None)


def _run_with_files(
    argv: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
    answered: re.Pattern[bytes],
    cwd: str | None,
    linger: float | None,  # noqa: ARG001 - the output is read when the process has ended
    feed: tuple[int, int, bytes] | None,  # noqa: ARG001 - for POSIX shells
) -> Finished:  # pragma: no cover - never run here
    """Do what ``run_to_end`` does, where pipes cannot be polled."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            creationflags=flags,
        )
        ended = True
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            ended = False
        except BaseException:
            kill_group(process)
            raise
        out.seek(0)
        data = out.read()
        if not ended or not answered.search(data):
            kill_group(process)
        code = process.wait()
        err.seek(0)
        return Finished(code, ended, data, err.read()[-_TAIL:])


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, and everything in that group."""
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False
        )
        process.kill()
    else:
        # Race: the leader may have been reaped already; a group that still has members keeps its
        # number, an empty one is gone.
        try:
            killpg(process.pid, SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
            pass


#: Where Windows locks a file: behind all that it holds, so that it can be read meanwhile.
_LOCKED_BYTE: Final = 1 << 30
#: What a file system says that knows no locks.
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def lock_file(fd: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until it is closed, or its process has ended.

    A file system that knows no locks counts as locked: what is locked here is safe without it.

    Args:
        fd: of the file.
        shared: others may lock it in the same way. Windows has no such lock: nothing is locked.
        wait: wait until it is free.

    Returns:
        False if another has it.
    """
    if sys.platform == "win32":
        import msvcrt

        if shared:
            return True
        while True:
            os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
            try:
                # tries for ten seconds
                msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
            else:
                return True
    else:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True


def new_group() -> dict[str, Any]:
    """Return the arguments with which ``Popen`` starts a process that leads a group of its own.

    A Ctrl-C of the terminal does not reach it.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    else:  # noqa: RET505
        return {"start_new_session": True}


def cache_folder() -> str:
    """Return where the library may keep what it can make again, by the custom of the platform.

    ``platformdirs`` knows it; where that is not installed, these are its rules.
    """
    try:
        from platformdirs import user_cache_dir
    except ImportError:
        pass
    else:
        folder: str = user_cache_dir("wetlands-executor", appauthor=False)
        return folder
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
        return os.path.join(base, "wetlands-executor", "Cache")
    elif sys.platform == "darwin":  # noqa: RET505
        return os.path.expanduser("~/Library/Caches/wetlands-executor")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return os.path.join(base, "wetlands-executor")
