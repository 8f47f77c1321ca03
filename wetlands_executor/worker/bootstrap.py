"""Second stage of a worker's start.

The import system of the shipped package, the life pipe (``system.py``), then the runner.

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


def main(
    fds: List[int], sources: Callable[[], Dict[str, str]], find: Callable[[str], Optional[CodeType]]
) -> None:
    """Become a worker; does not return."""
    import gc

    sys.meta_path.insert(0, BundleFinder(sources, find))
    from _wetlands_worker import system  # type: ignore[import-not-found]

    system.tie_to_host(fds[3])
    system.expect_children()
    for fd in fds:
        if fd >= 0:
            # commands that tasks start must not keep the pipes open
            os.set_inheritable(fd, False)
    collecting = gc.isenabled()
    gc.disable()
    from _wetlands_worker import runner

    if hasattr(gc, "freeze"):
        # What the start has made stays. Else every full collection would look at all of it, those
        # at the end of the process too: a tenth of a short worker's life.
        gc.freeze()
    if collecting:
        gc.enable()
    forked = fds[0] < 0
    if forked:  # the host asks for a fork server; what returns is a worker that it has forked
        from _wetlands_worker import fork_server

        fds = fork_server.serve(fds)
    runner.main(fds, forked)
