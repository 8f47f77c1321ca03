"""Ask an interpreter what it is, as a worker of it would be started.

Owns the question and the reading of its answer. A wrapper may print a banner, and an interpreter
may need what its activation sets, so the process gets the argument vector, variables and folder of
a worker, and the answer stands between marks. Any thread may enter.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from wetlands_executor.environment import processes

# Parses on every Python. Both modules are frozen: nothing in the current folder can take their
# place.
_QUESTION: Final = (
    "import sys, _frozen_importlib_external as e\n"
    "sys.stdout.write('\\n%(mark)s %%s-%%s %%s %(mark)s\\n' %% (sys.implementation.name, "
    "e.MAGIC_NUMBER.hex(), sys.version.split()[0]))\n"
    "sys.stdout.flush()"
)
#: Seconds that an interpreter may take to answer. The thread that asks is one that submits; without
#: an answer it does without (``serialize.interpreter``).
TIMEOUT: Final = 2.0
#: Seconds that it may take to end when it has answered.
LINGER: Final = 0.2


def ask(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> tuple[str, str] | None:
    """Return (implementation and magic number, version) of an interpreter.

    Args:
        argv: how it is started.
        env: its variables.
        cwd: its folder; None is that of this process.

    Returns:
        None if it did not answer.

    Raises:
        OSError: it cannot be started.
    """
    mark = f"wetlands-{secrets.token_hex(8)}"
    answer = re.compile(rb"%s (\S+) (\S+) %s" % (mark.encode(), mark.encode()))
    command = [*argv, "-S", "-c", _QUESTION % {"mark": mark}]
    done = processes.run_to_end(command, env, TIMEOUT, answer, cwd=cwd, linger=LINGER)
    found = answer.search(done.out)
    return (found[1].decode(), found[2].decode()) if found else None
