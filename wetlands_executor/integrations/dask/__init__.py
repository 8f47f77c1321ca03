"""Dask: the tasks of this library on a cluster (extra ``dask``).

``DaskEnvExecutor`` is the executor, in the program. ``WetlandsWorkerPlugin`` has a pool of workers
of an environment on each host. Dask carries calls and results as bytes between the two; what Dask
runs itself is ``host.run_call``. Dask's words: *scheduler*, *worker*, *client*; here a Dask worker
is called a *host*, because workers are those of this library.
"""

from __future__ import annotations

try:
    import distributed as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "wetlands_executor.integrations.dask needs distributed (the extra 'dask'): "
        f"python -m pip install 'wetlands-executor[dask]' ({error})",
        name="distributed",
    ) from error

from wetlands_executor.integrations.dask.executor import DaskEnvExecutor
from wetlands_executor.integrations.dask.host import WetlandsWorkerPlugin

__all__ = ["DaskEnvExecutor", "WetlandsWorkerPlugin"]
