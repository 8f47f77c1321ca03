"""Where an executor's environment comes from: it is there, or it is made before the first worker.

Owns the decision between an environment and a description of one, and the one creation that an
executor has under way. ``EnvironmentSource.make`` belongs to the thread that starts workers; any
thread may ask for what is known, and cancel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from wetlands_executor.environment.described import project_environment, request_of
from wetlands_executor.environment.environment import Environment
from wetlands_executor.environment.store import Record, Store

if TYPE_CHECKING:
    from wetlands_executor.environment.cancellation import Cancellation
    from wetlands_executor.environment.create_request import CreateRequest
    from wetlands_executor.environment.creation_run import CreationProgress, OnProgress
    from wetlands_executor.environment.locks import Lease

LOGGER = logging.getLogger("wetlands_executor.environment")


class EnvironmentSource:
    """The environment of an executor.

    Args:
        environment: it is there; None: it is made when a worker is started.
        request: what is made then.
        label: how messages call it.
    """

    def __init__(
        self, environment: Environment | None, request: CreateRequest | None = None, label: str = ""
    ) -> None:
        self._environment = environment
        self._request = request
        self._label = label
        self._lease: Lease | None = None
        self._cancellation: Cancellation | None = None
        self._watchers: tuple[OnProgress, ...] = ()
        self._last_error: BaseException | None = None
        #: Creations that have failed.
        self.failures = 0
        if environment is not None:
            record = Store().owner_of(environment.prefix)
            if record is not None:
                self._use(record)
        elif request is not None:
            self._adopt(request.look_up(Store()))

    @property
    def known(self) -> Environment | None:
        """The environment; None while it is not made."""
        return self._environment

    @property
    def label(self) -> str:
        """How messages call it."""
        environment = self._environment
        if environment is None or self._label:
            return self._label
        return f"the environment {environment.name or environment.prefix}"

    @property
    def python(self) -> str | None:
        """Its interpreter; None while it is not made."""
        environment = self._environment
        return None if environment is None else str(environment.python)

    def get(self) -> Environment:
        """Return the environment.

        Raises:
            EnvironmentCreationError: it could not be made.
            RuntimeError: it is not made yet.
        """
        if self._environment is None:
            raise self._last_error or RuntimeError(f"{self._label} is not made yet")
        return self._environment

    def watch(self, on_progress: OnProgress) -> None:
        """Tell a callback how far a creation is."""
        self._watchers = (*self._watchers, on_progress)

    def cancel(self) -> None:
        """Stop the creation that is under way. Any thread."""
        cancellation = self._cancellation
        if cancellation is not None:
            cancellation.request()

    def release(self) -> None:
        """Let the environment be removed: it is not used any more."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()

    def make(self, wanted: Callable[[], bool] = lambda: True, asked: int | None = None) -> None:
        """Make the environment if it is not there.

        Args:
            wanted: returns False once it is not wanted any more. Order: the other thread notes that
                and then calls ``cancel``; this one makes what is cancelled and then asks.
            asked: value of ``failures`` when it was asked for: if a creation has failed since, its
                error is raised again.

        Raises:
            EnvironmentCreationError: it cannot be made.
            CancelledError: it is not wanted any more.
        """
        request = self._request
        if self._environment is not None or request is None:
            return
        if asked is not None and asked != self.failures and self._last_error is not None:
            raise self._last_error
        from wetlands_executor.environment.cancellation import Cancellation
        from wetlands_executor.environment.creation import create

        self._cancellation = cancellation = Cancellation()
        try:
            if not wanted():
                cancellation.request()
            # Race: another process may remove what was found before there is a lease on it.
            while self._environment is None:
                self._adopt(create(request, on_progress=self._tell, cancellation=cancellation))
        except CancelledError:
            raise
        except BaseException as error:
            self._last_error = error
            self.failures += 1
            LOGGER.info("%s could not be made: %s", self._label, error)
            raise
        finally:
            self._cancellation = None

    def _tell(self, progress: CreationProgress) -> None:
        LOGGER.info("%s: %s %s", self._label, progress.phase.value, progress.message)
        for watcher in self._watchers:
            watcher(progress)

    def _adopt(self, record: Record | None) -> None:
        # Order: the lease before the look at whether the environment is still there. A removal has
        # a lease that excludes this one, and marks the environment before any of its files goes.
        if record is not None and self._use(record):
            if record.is_usable():
                self._environment = Environment.find(record.prefix)
            else:
                self.release()

    def _use(self, record: Record) -> bool:
        """Keep an environment from being removed; return False if it is being removed."""
        self.release()
        self._lease = record.lease()
        record.note_use()
        return self._lease is not None


def source_of(what: object) -> EnvironmentSource:
    """Return where the environment comes from that an executor was given.

    Args:
        what: what ``Environment.find`` takes, an ``EnvironmentSpec``, or a file that describes an
            environment.

    Raises:
        EnvironmentNotFoundError: no environment answers to it.
        SpecError: the file cannot be understood.
    """
    installed = project_environment(what)
    found = None if installed is not None else request_of(what)
    if found is None:
        return EnvironmentSource(Environment.find(what))
    return EnvironmentSource(None, *found)
