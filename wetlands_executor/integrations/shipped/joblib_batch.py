"""The worker's half of the joblib backend: sent there by its content, not imported here.

It runs on Python 3.8 and newer. joblib need not be installed in the environment: without it there
is nothing that could run a nested ``Parallel``.
"""

from __future__ import annotations

import contextlib
import importlib.util

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, ContextManager, Dict, List, Sequence, Tuple


def run_batch(
    calls: Sequence[Tuple[Any, Sequence[Any], Dict[str, Any]]], level: int, names: Sequence[str]
) -> List[Any]:
    """Call functions one after another; return their results.

    Args:
        calls: functions with their positional and keyword arguments.
        level: of a ``Parallel`` that one of them may call, from 1.
        names: of the backend that has sent them.
    """
    with _nested(level, names):
        return [function(*args, **kwargs) for function, args, kwargs in calls]


def _nested(level: int, names: Sequence[str]) -> ContextManager[Any]:
    """Let a nested ``Parallel`` use threads, and one that is nested in that no other threads.

    Otherwise each worker would start processes of its own.
    """
    # A function may import joblib while it runs, so it is not enough to look at `sys.modules`.
    if importlib.util.find_spec("joblib") is None:
        return contextlib.nullcontext()
    from joblib import parallel

    def backend(nesting_level: int = level, **given: Any) -> Any:
        """Return the nested backend, also to code that names the one that has sent it."""
        if any(value is not None for value in given.values()):
            raise RuntimeError(
                "a Parallel in a worker runs in the threads of that worker, so it takes no %s; "
                "submit to current_task().executor instead" % ", ".join(sorted(given))
            )
        threads = nesting_level < 2
        kind = parallel.ThreadingBackend if threads else parallel.SequentialBackend
        return kind(nesting_level=nesting_level)

    for name in names:
        if name not in parallel.BACKENDS:
            parallel.register_parallel_backend(name, backend)
    config = getattr(parallel, "parallel_config", None) or parallel.parallel_backend  # joblib < 1.3
    found: ContextManager[Any] = config(backend=backend(), n_jobs=None)
    return found
