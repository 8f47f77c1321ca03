"""The client's part: takes calls to Dask, and says what becomes of them.

Threads: those that submit or cancel; the event loop of the client, for events; Dask's thread for
callbacks of futures; and the pool's thread for requests, which waits for answers.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed import KilledWorker

from wetlands_executor import CarriedCall, WorkerCrashed
from wetlands_executor.integrations.dask import host
from wetlands_executor.integrations.dask.claims import handler_of

if TYPE_CHECKING:
    from wetlands_executor import CallOptions, WorkerInfo

LOGGER = logging.getLogger("wetlands_executor")
#: Bytes of a call from which on Dask moves it like data, and not with the graph of tasks.
LARGE = 500_000


class DaskOutcome:
    """The outcome of a call in the memory of a host.

    Args:
        future: of Dask. As long as it is there, so is the outcome.
    """

    def __init__(self, future: Any) -> None:
        self.future = future

    def fetch(self, timeout: float | None = None) -> bytes:
        """Bring it here; see ``CarriedOutcome``."""
        try:
            found: bytes = self.future.result(timeout)
        except (host.LostCallError, KilledWorker, CancelledError) as error:
            raise WorkerCrashed(
                f"the result was lost with its host, or with the connection to the scheduler: "
                f"{type(error).__name__}"
            ) from error
        return found


class DaskCarrier:
    """Carries the calls of one executor. See ``wetlands_executor.Carrier``.

    Args:
        client: of Dask.
        name: of the executor's plugins.
        interpreter: of the workers.
        max_workers: number of calls that are with Dask at the same time; None is no limit.
        count: number of workers.
        resources: of Dask, that each call needs.
        close: lets go of what the executor has on the cluster.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        interpreter: Sequence[Any],
        max_workers: int | None,
        count: int,
        resources: Mapping[str, float] | None,
        close: Callable[[], object],
    ) -> None:
        self._client = client
        self._name = name
        self.interpreter = interpreter
        self.max_workers = count if max_workers is None else min(count, max_workers)
        self._limit = max_workers
        self._resources = resources
        self._close = close
        self._number = itertools.count(1).__next__
        # By key: what is with Dask, and its future.
        self._calls: dict[str, tuple[CarriedCall, Any]] = {}
        self._keys: dict[CarriedCall, str] = {}
        # On which host a call runs, by key.
        self._hosts: dict[str, str] = {}
        # Calls that a host has begun and has not said so yet: whether they are to be killed then.
        self._ends: dict[str, bool] = {}
        self._waiting: deque[CarriedCall] = deque()
        client.subscribe_topic(name, self._on_event)

    # --- calls in

    def carry(self, call: CarriedCall) -> None:
        """Hand a call to Dask, or keep it until fewer are there."""
        if self._limit is not None and len(self._calls) >= self._limit:
            self._waiting.append(call)
            self._send_waiting()  # Race: the last one may have ended meanwhile
        else:
            self._send(call)

    def _send_waiting(self) -> None:
        while self._waiting and (self._limit is None or len(self._calls) < self._limit):
            try:
                call = self._waiting.popleft()
            except IndexError:
                return
            if call.live:
                self._send(call)

    def _send(self, call: CarriedCall) -> None:
        key = f"{self._name}-{self._number()}"
        data: Any = call.data
        if len(data) >= LARGE:
            data = self._client.scatter(data, hash=False)
        options = call.options
        self._keys[call] = key
        # Race: the host may say that it has started before `submit` returns.
        self._calls[key] = call, None
        future = self._client.submit(
            host.run_call,
            self._name,
            key,
            data,
            _options_of(options),
            [outcome.future for outcome in call.outcomes if isinstance(outcome, DaskOutcome)],
            key=key,
            pure=False,
            priority=0 if options is None else options.priority,
            resources=dict(self._resources) if self._resources else None,
        )
        if key in self._calls:  # it was not withdrawn meanwhile
            self._calls[key] = call, future
        future.add_done_callback(partial(self._on_end, key))

    # --- what becomes of them

    def _on_event(self, event: tuple[float, Any]) -> None:
        """Take what a host says of a call. On the event loop of the client."""
        what, key, *said = event[1]
        if what == "started" and key in self._calls:
            self._hosts[key] = said[0]
            kill = self._ends.pop(key, None)
            if kill is not None:
                threading.Thread(target=self._end_on, args=(said[0], key, kill)).start()
        call, _ = self._calls.get(key, (None, None))
        if call is None:
            return
        if what == "started":
            call.started(said[1])
        elif what == "reported":
            call.reported(*said)
        elif what == "put out":
            try:
                call.put_out(pickle.loads(said[0]))
            except Exception:
                LOGGER.exception("wetlands_executor: a named output cannot be rebuilt here")

    def _on_end(self, key: str, future: Any) -> None:
        """Say what has become of a call. On Dask's thread for callbacks."""
        call, _ = self._calls.pop(key, (None, None))
        where = self._hosts.pop(key, None)
        self._ends.pop(key, None)
        if call is None:
            return
        status = future.status
        if status == "finished":
            call.returned(DaskOutcome(future))
        elif status == "error":
            self._say_failure(call, future.exception(), where)
        else:
            call.failed(WorkerCrashed(f"the connection to the scheduler was lost: {status}"))
        # Order: until it is decided what became of it, it cannot be withdrawn.
        self._keys.pop(call, None)
        self._send_waiting()

    def _say_failure(self, call: CarriedCall, error: Any, where: str | None) -> None:
        if isinstance(error, host.RaisedError):
            call.failed(error.args[0])
        elif isinstance(error, host.CancelledCallError):
            call.cancelled(error.args[0])
        elif isinstance(error, (host.LostCallError, KilledWorker)):
            call.failed(
                WorkerCrashed(
                    f"the host {where or 'that had begun it'} was lost; it is not run again by "
                    f"itself, because it may have done something: options(retries=...) allows that"
                )
            )
        else:
            call.failed(error)

    # --- cancelling

    def withdraw(self, calls: Sequence[CarriedCall]) -> list[CarriedCall]:
        """Claim calls, so that no host gets them; see ``Carrier``."""
        gone = [call for call in calls if self._is_kept_back(call)]
        # Race: one that is in neither place is on its way to Dask, or has just ended.
        keys = {
            key: call for call in calls if (key := self._keys.get(call)) is not None
        }
        if keys:
            try:
                claimed = self._claim(list(keys))
            except Exception as error:  # noqa: BLE001 - whatever Dask raises; the tasks then fail
                LOGGER.debug("wetlands_executor: the scheduler does not answer: %s", error)
                return gone
            gone += [keys[key] for key in claimed]
            for key in claimed:
                self._keys.pop(keys[key], None)
            self._send_waiting()
        return gone

    def _claim(self, keys: list[str]) -> list[str]:
        """Claim calls at the scheduler, and let Dask forget those that were to be had."""
        claim = getattr(self._client.scheduler, handler_of(self._name))
        claimed: list[str] = self._client.sync(claim, keys=keys)
        futures = [self._calls.pop(key, (None, None))[1] for key in claimed]
        self._client.cancel([future for future in futures if future is not None])
        return claimed

    def _is_kept_back(self, call: CarriedCall) -> bool:
        """Return True for a call that was not with Dask, and will not be."""
        try:
            self._waiting.remove(call)
        except ValueError:
            return False
        return True

    def ask_to_cancel(self, call: CarriedCall) -> None:
        """Ask a running call to stop."""
        self._end(call, kill=False)

    def kill(self, call: CarriedCall) -> None:
        """Withdraw a call, or end its worker."""
        if not self.withdraw([call]):
            self._end(call, kill=True)

    def _end(self, call: CarriedCall, *, kill: bool) -> None:
        key = self._keys.get(call)
        if key is None:
            return
        # Race: the thread of the events stores the host and then looks here.
        self._ends[key] = kill or self._ends.get(key, False)
        where = self._hosts.get(key)
        if where is not None and self._ends.pop(key, None) is not None:
            self._end_on(where, key, kill)

    def _end_on(self, where: str, key: str, kill: bool) -> None:
        _attempt(partial(self._client.run, workers=[where]), host.end_call, self._name, key, kill)

    # --- the rest

    def workers(self) -> list[WorkerInfo]:
        """Return nothing: the workers are on other machines, and are not asked."""
        return []

    def close(self) -> None:
        """Let go of what the executor has on the cluster."""
        _attempt(self._client.unsubscribe_topic, self._name)
        _attempt(self._close)


def _options_of(options: CallOptions | None) -> dict[str, Any]:
    """Return what is asked of a call on its host; retries and priority are the client's."""
    if options is None:
        return {}
    return {
        "name": options.name,
        "timeout": options.timeout,
        "cancel_grace": options.cancel_grace,
    }


def _attempt(job: Callable[..., object], *args: Any) -> None:
    """Do what a lost host, scheduler or connection may prevent: nothing can be done then."""
    try:
        job(*args)
    except Exception as error:  # noqa: BLE001 - whatever Dask raises; the task fails by itself
        LOGGER.debug("wetlands_executor: %r did not succeed: %s", job, error)
