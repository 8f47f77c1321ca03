"""What a pool knows of the Python in which its workers run, before one has said so: whether code may travel there as bytecode.

Asked by threads that submit, and only when something by value is to be pickled: calls of importable functions never get here. The
interpreter is started once for its answer (about 10 ms), unless it is this very one or a worker has said hello already.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

#: What has to be the same on both sides for bytecode to travel: implementation and magic number (PEP 3147).
MAGIC = f"{sys.implementation.name}-{importlib.util.MAGIC_NUMBER.hex()}"
#: Version of this Python, for messages.
VERSION = sys.version.split()[0]

_QUESTION = (
    "import sys, _frozen_importlib_external as e\n"
    "sys.stdout.write('%s-%s %s' % (sys.implementation.name, e.MAGIC_NUMBER.hex(), sys.version.split()[0]))"
)
#: Seconds that an interpreter may take to answer; one that takes longer will fail to start as a worker, too.
PATIENCE = 30.0


class Peer:
    """The Python of one pool's workers.

    Args:
        python: path of its interpreter; None is this one.
    """

    __slots__ = ("_known", "_made", "_python", "record")

    def __init__(self, python: str | os.PathLike[str] | None = None) -> None:
        self._python = os.fspath(python) if python is not None else None
        self._known: tuple[str, str] | None = None
        #: The objects that its workers know by number (``identity.Record``), from the first function by value on.
        self.record: Any = None
        self._made: dict[str, Any] = {}

    def learn(self, hello: Mapping[str, Any]) -> None:
        """Believe what a worker says of itself. I/O thread."""
        self._known = (str(hello["magic"]), str(hello["version"]))

    def keep_record(self, made: Any) -> Any:
        """Return the record; ``made`` if there is none. Two threads that come with one each get the same, without a lock."""
        self.record = found = self._made.setdefault("record", made)
        return found

    @property
    def foreign(self) -> bool:
        """True if its bytecode is not ours. The first question may start a process."""
        return self._ask()[0] != MAGIC

    @property
    def surely_same(self) -> bool:
        """True if its bytecode is ours, as far as that is known without asking: it is this interpreter, or has answered already."""
        known = self._known
        if known is not None:
            return known[0] == MAGIC
        return self._python is None or os.path.realpath(self._python) == os.path.realpath(sys.executable or "")

    @property
    def version(self) -> str:
        """Its Python version, for messages."""
        return self._ask()[1]

    def _ask(self) -> tuple[str, str]:
        known = self._known
        if known is None:
            known = (MAGIC, VERSION)
            if self._python is not None:
                try:
                    if os.path.realpath(self._python) != os.path.realpath(sys.executable or ""):
                        status = os.stat(self._python)
                        known = _answer(self._python, status.st_mtime_ns, status.st_size)
                except (OSError, subprocess.SubprocessError, ValueError):
                    # It does not work: that is for the start of the worker to say, in its own words. If it works after all and is another
                    # Python, what was pickled as bytecode is refused before it is sent.
                    pass
            if self._known is None:
                self._known = known
        return known


@functools.lru_cache(maxsize=256)
def _answer(python: str, _changed: int, _size: int) -> tuple[str, str]:
    """Return (implementation and magic number, version) of an interpreter; asked anew when its file has changed."""
    done = subprocess.run(
        [python, "-I", "-S", "-c", _QUESTION], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    magic, version = done.stdout.split()
    return magic, version
