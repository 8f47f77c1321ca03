"""Second stage of a worker's start.

Its life pipe, the import system of the shipped package, then the runner.

Runs once, on the main thread, before any user code. ``STAGE0`` has read the sources and calls
``main``. Only ``os`` and ``sys`` are imported here at the top: every further import costs start
time, so modules of the bundle are compiled when they are first imported.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, Callable, Dict, List, Optional

#: Name of the shipped package inside a worker. Not ``wetlands_executor``: a real one may be
#: installed in the environment.
PACKAGE = "_wetlands_worker"

_spec_type: Any = type(sys.__spec__)


class BundleFinder:
    """Import modules of the shipped package, without importlib's Python half (which costs 5 ms).

    Args:
        sources: returns name -> source. Called when one is needed: decoding them takes as long as
            the import of several modules.
        find: returns the code object of a module, None if the host has sent its source only.
    """

    def __init__(
        self, sources: Callable[[], Dict[str, str]], find: Callable[[str], Optional[CodeType]]
    ) -> None:
        self._sources = sources
        self._texts: Dict[str, str] = {}
        self.find = find

    @property
    def sources(self) -> Dict[str, str]:
        """All sources."""
        self._texts = self._texts or self._sources()
        return self._texts

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find the package and its modules."""
        if name == PACKAGE:
            return _spec_type(name, self, origin="<wetlands_executor>", is_package=True)
        package, _, module = name.rpartition(".")
        if package != PACKAGE:
            return None
        code = self.find(module)
        if code is None and module not in self.sources:
            return None
        return _spec_type(
            name, self, origin="<wetlands_executor>/%s.py" % module, loader_state=code
        )

    def create_module(self, spec: Any) -> None:
        """Let the import system make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module's code, from its source if the host has sent nothing else."""
        spec: Any = module.__spec__
        code, spec.loader_state = spec.loader_state, None
        source = "" if code is not None else self.get_source(module.__name__)
        if source:
            code = compile(source, str(spec.origin), "exec", dont_inherit=True)
        if code is not None:
            exec(code, module.__dict__)

    def get_source(self, name: str) -> Optional[str]:
        """Give ``linecache`` the lines for a traceback."""
        return "" if name == PACKAGE else self.sources.get(name.rpartition(".")[2])

    def invalidate_caches(self) -> None:
        """Nothing is cached; importlib asks every finder."""


def tie_to_host(life: int) -> None:
    """End this process, and what it started, when the host dies; whatever it is doing then.

    The host holds the only writing end of the life pipe and never writes. On Linux the kernel turns
    its closing into a SIGKILL for the whole process group, which also ends a worker that holds the
    GIL in C code. Elsewhere a thread waits for it.
    """
    if life < 0:
        return
    if sys.platform == "linux":
        try:
            import fcntl

            set_signal = fcntl.F_SETSIG if hasattr(fcntl, "F_SETSIG") else 10
            os.set_blocking(life, False)
            # The group is this worker's alone: the host starts each in a session of its own, of
            # which a wrapper may be the leader. In a container with processes of its own that
            # group may have no number (0).
            fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp() or os.getpid())
            fcntl.fcntl(life, set_signal, 9)
            fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
            # Race: the host may have died before the lines above; then nothing will signal any
            # more, but the pipe is at its end.
            try:
                if os.read(life, 1) == b"":
                    os._exit(87)
            except BlockingIOError:
                pass
            return
        except (ImportError, OSError):
            pass
    import _thread

    def wait_for_end() -> None:
        try:
            os.read(life, 1)
        finally:
            if sys.platform != "win32":
                os.killpg(os.getpgrp(), 9)
            os._exit(87)

    if sys.platform != "win32":
        os.set_blocking(life, True)
    _thread.start_new_thread(wait_for_end, ())


def expect_children() -> None:
    """Restore the default of SIGCHLD if the host ignores it.

    Commands that a task runs would have no exit status: a program inherits what is ignored.
    """
    import _signal

    number = getattr(_signal, "SIGCHLD", None)
    if number is not None and _signal.getsignal(number) == _signal.SIG_IGN:
        _signal.signal(number, _signal.SIG_DFL)


def main(
    fds: List[int], sources: Callable[[], Dict[str, str]], find: Callable[[str], Optional[CodeType]]
) -> None:
    """Become a worker; does not return."""
    import gc

    tie_to_host(fds[3])
    expect_children()
    for fd in fds:
        if fd >= 0:
            # commands that tasks start must not keep the pipes open
            os.set_inheritable(fd, False)
    sys.meta_path.insert(0, BundleFinder(sources, find))
    collecting = gc.isenabled()
    gc.disable()
    from _wetlands_worker import runner  # type: ignore[import-not-found]

    if hasattr(gc, "freeze"):
        # What the start has made stays. Else every full collection would look at all of it, those
        # at the end of the process too: a tenth of a short worker's life.
        gc.freeze()
    if collecting:
        gc.enable()
    forked = fds[0] < 0
    if forked:  # the host asks for a fork server; what returns is a worker that it has forked
        from _wetlands_worker import fork_server

        fds = fork_server.serve(fds, tie_to_host)
    runner.main(fds, forked)
