"""``DaskEnvExecutor``: the public object. Owns nothing; any thread."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from distributed import Client

from wetlands_executor import CarriedExecutor, EnvironmentNotFoundError, WorkerStartError
from wetlands_executor.integrations.dask import host
from wetlands_executor.integrations.dask.carrier import DaskCarrier
from wetlands_executor.integrations.dask.claims import ClaimedCalls


class DaskEnvExecutor(CarriedExecutor):
    """The Tasks of ``CondaEnvExecutor`` in environments of the hosts of a Dask cluster.

    On each host, which is what Dask calls a worker, a pool of this library runs the calls. The
    scheduler and the hosts need this package; the environment needs nothing.

    Args:
        client: a ``distributed.Client``, or the address of a scheduler.
        env: the environment, as each host sees it; see ``WetlandsWorkerPlugin``.
        max_workers: calls that are with Dask at the same time at most; None is no limit.
        workers_per_host: number of workers on each host; None is its number of Dask's threads.
        resources: of Dask that each call needs, such as ``{"GPU": 1}``; hosts have them by
            ``dask worker --resources "GPU=2"``.
        **options: of ``CondaEnvExecutor``, for each host: ``initializer``, ``preload``,
            ``task_timeout``, ``worker_env``, ...

    Raises:
        EnvironmentNotFoundError: a host does not have the environment; the message names the hosts.
        WorkerStartError: a host cannot start a worker of it.
        RuntimeError: there is no host, or their environments have different versions of Python.
        OSError: the scheduler cannot be reached.
    """

    def __init__(
        self,
        client: Any,
        env: Any = None,
        max_workers: int | None = None,
        *,
        workers_per_host: int | None = None,
        resources: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be 1 or more, not {max_workers}")
        own = not isinstance(client, Client)
        if own:
            client = Client(client, set_as_default=False)
        name = f"wetlands-{uuid.uuid4().hex[:12]}"
        claims = ClaimedCalls(name)

        def close() -> None:
            client.unregister_worker_plugin(name)
            client.unregister_scheduler_plugin(claims.name)
            if own:
                client.close()

        try:
            client.register_plugin(claims, name=claims.name)
            plugin = host.WetlandsWorkerPlugin(name, env, workers_per_host, options)
            client.register_plugin(plugin, name=name)
            interpreter, count = _examined(client.run(host.report, name))
        except BaseException:
            close()
            raise
        super().__init__(
            DaskCarrier(
                client,
                name,
                interpreter=interpreter,
                max_workers=max_workers,
                count=count,
                resources=resources,
                close=close,
            )
        )


def _examined(reports: Mapping[str, host.Report]) -> tuple[tuple[Any, ...], int]:
    """Return the interpreter of the workers of all hosts, and how many workers there are."""
    found = list(reports.values())
    if not found:
        raise RuntimeError(
            "the cluster has no host: wait for the first one, client.wait_for_workers(1)"
        )
    failed = [each for each in found if each.error is not None]
    if failed:
        lines = "".join(f"\n  {each.host}: {each.error}" for each in failed)
        kind = EnvironmentNotFoundError if all(e.missing for e in failed) else WorkerStartError
        raise kind(f"{len(failed)} of {len(found)} hosts cannot run calls:{lines}")
    kinds = {each.interpreter for each in found if each.interpreter is not None}
    if len({kind[1:] for kind in kinds}) > 1:
        lines = "".join(
            f"\n  {each.host}: Python {each.interpreter[0]}" for each in found if each.interpreter
        )
        raise RuntimeError(
            f"the environments of the hosts have different versions of Python, and a call is "
            f"packed for one:{lines}"
        )
    return min(kinds), sum(each.workers for each in found)
