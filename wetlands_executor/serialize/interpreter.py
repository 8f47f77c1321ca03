"""The Python in which the workers of a pool run, before one of them has said hello.

Whether code may travel there as bytecode.

Asked by threads that submit, and only when something by value is to be pickled: calls of importable
functions never get here. The interpreter is started once for its answer (about 10 ms), as a worker
is started, unless it is this very one or a worker has said hello already.

Guarantee: the question waits for no worker and for no making of an environment. While there is no
answer, code travels as source, which is right for any Python (``is_undecided``); code that has no
source is pickled as bytecode then, and the pool refuses it if the worker turns out to be another
Python.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wetlands_executor.environment import question
from wetlands_executor.environment.source import EnvironmentSource
from wetlands_executor.errors import WetlandsExecutorError

#: What has to be the same on both sides for bytecode to travel: implementation and magic number
#: (PEP 3147).
MAGIC = f"{sys.implementation.name}-{importlib.util.MAGIC_NUMBER.hex()}"
#: A switch for tests: False lets bytecode travel as if there were one Python version only.
PORTABLE = True
#: Version of this Python, for messages.
VERSION = sys.version.split()[0]
#: Of an interpreter that has not answered, or is not made yet: source is right for any.
UNKNOWN = ("", "of an unknown version")

#: Says how a worker is started: argument vector, variables, folder.
Launch = Callable[[], "tuple[Sequence[str], Mapping[str, str], str | None]"]
#: Answers that are kept, by how the interpreter was started and what its file was.
CACHE_SIZE = 256

# Changed by single operations only, without a lock that an interrupted thread could leave locked.
# Two threads may ask the same interpreter.
_cache: dict[Any, tuple[str, str]] = {}


class RemoteInterpreter:
    """The Python of one pool's workers.

    Args:
        python: path of its interpreter; None is this one.
        launch: how workers are started; None: by ``python`` alone, with the variables of this
            process.
        source: gives the environment of the workers; ``python`` counts once that is made. None:
            there is nothing to be made.

    Attributes:
        silent: it was asked and did not answer.
        replaced: version that the interpreter had when it was asked, or when an earlier worker said
            hello, if it has another now.
    """

    __slots__ = (
        "_cached",
        "_known",
        "_launch",
        "_made",
        "_python",
        "_source",
        "record",
        "replaced",
        "silent",
    )

    def __init__(
        self,
        python: str | os.PathLike[str] | None = None,
        launch: Launch | None = None,
        source: EnvironmentSource | None = None,
    ) -> None:
        self._python = os.fspath(python) if python is not None else None
        # None once the environment is there.
        self._source = source if python is None else None
        self._launch = launch
        self._known: tuple[str, str] | None = None
        #: The objects that its workers know by number (``identity.Record``), from the first
        #: function by value on.
        self.record: Any = None
        self._made: dict[str, Any] = {}
        self._cached: Any = None
        self.silent = False
        self.replaced: str | None = None

    def learn(self, hello: Mapping[str, Any]) -> None:
        """Record what a worker says of itself, which counts more than an answer. I/O thread."""
        new = (str(hello["magic"]), str(hello["version"]))
        known, self._known = self._known, new
        if known is not None and known != new:
            self.replaced = known[1]
            _cache.pop(self._cached, None)

    def keep_record(self, made: Any) -> Any:
        """Return the record; ``made`` if there is none.

        Two threads that come with one each get the same, without a lock.
        """
        self.record = found = self._made.setdefault("record", made)
        return found

    def refresh(self, obj: Any) -> None:
        """Forget how a function or class by value was pickled: see ``identity.Record.refresh``."""
        if self.record is not None:
            self.record.refresh(obj)

    def drop_record(self) -> None:
        """Let go of the record: the pool has ended, and its executor may be kept for long."""
        self.record = None
        self._made.pop("record", None)

    @property
    def is_undecided(self) -> bool:
        """True while it is not known: its environment is not made, or it has not answered."""
        return self._ask() == UNKNOWN

    @property
    def foreign(self) -> bool:
        """True if its bytecode is not ours, or if that cannot be known.

        The first question may start a process.
        """
        return self._ask()[0] != MAGIC

    @property
    def surely_same(self) -> bool:
        """True if its bytecode is ours, as far as that is known without asking.

        It is this interpreter, or has answered already.
        """
        known = self._known
        if known is not None:
            return known[0] == MAGIC
        return self._is_this()

    @property
    def version(self) -> str:
        """Its Python version, for messages."""
        return self._ask()[1]

    @property
    def known_version(self) -> str:
        """The same as far as it is known without asking; else empty."""
        known = self._known
        if known is not None:
            return known[1]
        return VERSION if self._is_this() else ""

    def _is_this(self) -> bool:
        if self._source is not None:
            self._python = self._source.python
            if self._python is None:
                return False
            self._source = None
        return self._python is None or os.path.realpath(self._python) == os.path.realpath(
            sys.executable or ""
        )

    def _ask(self) -> tuple[str, str]:
        known = self._known
        if known is not None:
            return known
        source = self._source
        if source is not None and source.known is None:
            return UNKNOWN
        if self._is_this():
            known = MAGIC, VERSION
        elif not self.silent:
            known = self._answer_in_time()
        if known is None:
            # It needs something that only a worker's start has, or does not work at all: a worker
            # will say either.
            self.silent = True
            return UNKNOWN
        # Race: a worker may have said hello meanwhile (`learn`), which counts more.
        if self._known is None:
            self._known = known
        return self._known

    def _answer_in_time(self) -> tuple[str, str] | None:
        """Return its answer; None if it does not come in time.

        The scripts of an activation, which come first, may take long; what they set is kept, and
        the start of a worker needs it as well. So the question goes on in its thread.
        """
        answers = []

        def ask() -> None:
            found = self._answer()
            answers.append(found)
            if found is not None and self._known is None:
                self._known = found

        thread = threading.Thread(target=ask, name="wetlands-interpreter")
        try:
            thread.start()
        except RuntimeError:  # no thread can be started any more: the interpreter ends
            return self._answer()
        thread.join(question.TIMEOUT)
        return answers[0] if answers else None

    def _answer(self) -> tuple[str, str] | None:
        assert self._python is not None
        try:
            argv, env, cwd = (
                self._launch() if self._launch is not None else ((self._python,), os.environ, None)
            )
            status = os.stat(argv[0])
            key = (
                tuple(argv),
                frozenset(env.items()),
                cwd,
                os.path.realpath(argv[0]),
                status.st_mtime_ns,
                status.st_size,
            )
            found = _cache.get(key)
            if found is None:
                found = question.ask(argv, env, cwd)
        except (
            OSError,
            TypeError,
            ValueError,
            WetlandsExecutorError,
        ):  # the start of a worker will meet it again, and say what it is
            return None
        if found is not None:
            self._cached = key
            if len(_cache) >= CACHE_SIZE:
                _cache.clear()
            _cache[key] = found
        return found
