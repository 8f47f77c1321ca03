"""What ends a command when its host has died: a shell that waits for the end of a pipe.

The host holds the writing end of the pipe and says first which process is meant, then that it has
ended. If the host dies, also by SIGKILL, the shell reads the end of the pipe instead, and ends the
processes of the command's session and those below them: SIGTERM, a second later SIGKILL.

A shell, because it starts in a millisecond and is there for frozen programs too. On Windows, and
where there is no /bin/sh, commands go on without their host; without /proc (macOS) only the
command's process group is ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

SHELL: Final = "/bin/sh"
# A process is known as "pid:start time", so that a number that is used again is not meant.
SCRIPT: Final = r"""
IFS= read -r root || exit 0
if IFS= read -r _; then exit 0; fi

look() {
    table='
'
    for file in /proc/[0-9]*/stat; do
        { IFS= read -r line < "$file"; } 2> /dev/null || continue
        # the name of a program, in parentheses, may hold anything
        rest=${line##*) }
        [ "$rest" != "$line" ] || continue
        pid=${file#/proc/}
        set -- $rest
        table="$table${pid%/stat}:${20} $2 $4
"
    done
    size=-1
    while [ ${#known} -ne "$size" ]; do
        size=${#known}
        while read -r process parent session; do
            case " $known " in
                *" $process "*) continue ;;
                *" $parent:"*) known="$known $process" ;;
                *) [ "$session" != "$root" ] || known="$known $process" ;;
            esac
        done << END
$table
END
    done
}

send() {
    look
    for process in $known; do
        case "$table" in
            *"
$process "*) kill -s "$1" "${process%:*}" 2> /dev/null ;;
        esac
    done
    kill -s "$1" -- "-$root" 2> /dev/null
}

known=
send TERM
sleep 1
send KILL
"""

#: The writing ends of the pipes of all guards: a child of a fork would keep them open.
_pipes: set[int] = set()


class Guard:
    """Ends the processes of one command if this process dies. Made before the command is."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        if sys.platform != "win32":
            self._start()

    def _start(self) -> None:
        reading, self._pipe = os.pipe()
        _pipes.add(self._pipe)
        try:
            self._shell = subprocess.Popen(
                [SHELL, "-c", SCRIPT, "wetlands-guard"],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.defpath},
                start_new_session=True,
            )
        except OSError:
            self._close()  # no shell, or no more processes: the command goes on without its host
        finally:
            os.close(reading)

    def watch(self, pid: int) -> None:
        """Say which process leads the session of the command."""
        self._tell(b"%d\n" % pid)

    def end(self) -> None:
        """Say that the command has ended, or was not started, and wait for the shell."""
        self._tell(b"\n")
        self._close()
        if self._shell is not None:
            self._shell.wait()

    def _tell(self, line: bytes) -> None:
        try:
            if self._pipe >= 0:
                os.write(self._pipe, line)
        except OSError:
            self._close()  # the shell was killed

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe in _pipes:  # not that of another file, in the child of a fork
            _pipes.discard(pipe)
            os.close(pipe)


def _forget() -> None:
    """Close the pipes; in a child of a fork."""
    while _pipes:
        os.close(_pipes.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
