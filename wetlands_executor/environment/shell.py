"""One shell that sources activation scripts, and the variables that it had at its end.

Owns the conversation with that shell: the marks that say how far it came, the dump, the time limit,
and the errors that name the script at fault. What the text of that conversation looks like on a
platform is ``shell_programs``'s. Any thread may enter; nothing is shared.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from wetlands_executor import children
from wetlands_executor.environment import _platform, shell_programs
from wetlands_executor.errors import ActivationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Characters of a script's output that go into an error; what matters is nearly always at its end.
OUTPUT_TAIL = 4000
_STARTUP_NAME = "the startup file of the shell (BASH_ENV, or /etc/profile for `module`)"
_LINES_NAME = "the extra lines of `activate=`"


class _Answer(NamedTuple):
    """What the shell wrote to the private descriptor."""

    # the number of a script, "startup", "lines" or "dump"; None: it never got to the first
    last_step: str | None
    dump: bytes | None  # None: missing or cut short


def variables_after(
    label: str,
    python: str,
    scripts: Sequence[str],
    lines: Sequence[str],
    base: Mapping[str, str],
    timeout: float,
) -> dict[str, str]:
    """Source scripts, run further lines, and return the variables of a process started there.

    Args:
        label: how the environment is called in errors.
        python: the environment's interpreter.
        scripts: absolute paths, in order.
        lines: shell text to run after the scripts, in the same shell.
        base: variables to start with.
        timeout: seconds that all of it may take.

    Raises:
        ActivationError: a script or line ended the shell, failed to let it end in time, or hid its
            variables.
    """
    token = f"wetlands-{secrets.token_hex(16)}"
    try:
        done = shell_programs.run_shell(
            python,
            scripts,
            "\n".join(lines),
            token,
            base,
            timeout,
            re.compile(token.encode() + rb" end\r?\n"),
        )
    except OSError as error:
        raise ActivationError(
            f"activating {label}: the shell could not be started: {error}"
        ) from error
    answer = _read(done.out, token)
    if not done.ended:
        step = _step_name(answer, scripts)
        raise ActivationError(
            f"activating {label}: {step} did not end within {timeout:g} s{_output(done.err)}"
        )
    if done.code not in (0, None) or answer.dump is None:
        raise ActivationError(
            f"activating {label}: {_fault(answer, scripts, done.code)}{_output(done.err)}"
        )
    return _merged(base, answer.dump)


def _read(data: bytes, token: str) -> _Answer:
    word = re.escape(token.encode())
    marks = list(re.finditer(word + rb" (\w+)\r?\n", data))
    steps = [mark for mark in marks if mark[1] != b"end"]
    if not steps:
        return _Answer(None, None)
    last = steps[-1]
    end = marks[-1]
    complete = last[1] == b"dump" and end[1] == b"end"
    return _Answer(last[1].decode("ascii"), data[last.end() : end.start()] if complete else None)


def _step_name(answer: _Answer, scripts: Sequence[str]) -> str:
    if answer.last_step is None:
        return "the shell"
    if answer.last_step.isdigit():
        return f"the script {scripts[int(answer.last_step)]!r}"
    return {"lines": _LINES_NAME, "startup": _STARTUP_NAME}.get(
        answer.last_step, "reading the variables back"
    )


def _fault(answer: _Answer, scripts: Sequence[str], code: int | None) -> str:
    """Describe why the shell ended without an answer, or with an exit code other than 0."""
    how = (
        f"in an unknown way ({children.WHY_LOST})"
        if code is None
        else f"with exit code {code}"
        if code >= 0
        else f"by signal {-code}"
    )
    step = answer.last_step
    if step is not None and step.isdigit():
        return (
            f"{_step_name(answer, scripts)} ended the shell {how}; an activation script may not "
            f"call `exit`, conda sources it"
        )
    if step == "lines":
        return (
            f"{_LINES_NAME} failed or ended the shell {how}; write `|| true` behind a command "
            f"that may fail"
        )
    if step == "startup":
        return f"{_STARTUP_NAME} ended the shell {how}"
    if step == "dump":
        return (
            f"its variables could not be read back, the shell ended {how}; did a script set a "
            f"trap or break LD_LIBRARY_PATH?"
        )
    return f"the shell ended {how} before the first script"


def _output(err: bytes) -> str:
    text = err.decode("utf-8", "replace").strip()
    if not text:
        return "\nIt wrote nothing to its standard error."
    return f"\nIt wrote:\n{text[-OUTPUT_TAIL:]}"


def _merged(base: Mapping[str, str], dump: bytes) -> dict[str, str]:
    """Apply what the shell changed to the variables that it was given."""
    seen = shell_programs.parse_dump(dump)
    kept = shell_programs.SHELL_OWN | shell_programs.SHELL_STARTUP
    result = {
        name: value
        for name, value in base.items()
        if name in seen or name in kept or _platform.lost_in_shell(name)
    }
    own = shell_programs.SHELL_OWN
    result.update((name, value) for name, value in seen.items() if name not in own)
    return result
