"""A Dask cluster of several processes on this machine.

The processes of Dask are kept for a whole module: a start takes two seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.fixtures import rendezvous  # noqa: F401


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two hosts with two threads of Dask each, in processes of their own."""
    from distributed import LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=0
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: Any) -> Iterator[Any]:
    """A client of it, with the threads that Dask starts when they are first needed."""
    from distributed import Client

    with Client(cluster) as client:
        future = client.submit(int)
        future.add_done_callback(print)
        future.result()
        yield client


@pytest.fixture
def make(client: Any) -> Iterator[Callable[..., Any]]:
    """Make executors of the cluster that end with the test: ``make(env=None, ...)``."""
    from wetlands_executor.integrations.dask import DaskEnvExecutor

    made: list[Any] = []

    def make(*args: Any, **options: Any) -> Any:
        made.append(DaskEnvExecutor(client, *args, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)
        executor.kill_workers()
        executor.shutdown()


@pytest.fixture
def executor(make: Callable[..., Any]) -> Any:
    """An executor in this environment."""
    return make()
