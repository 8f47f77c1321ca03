"""What becomes of made environments: their lock texts, their removal.

Owns the rule of what may be removed: nothing that an executor, a worker or another process uses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from wetlands_executor.environment import contents
from wetlands_executor.environment.backends import lock_texts
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.locks import CreationLock, users_of
from wetlands_executor.environment.store import COMPLETE, Record, Store
from wetlands_executor.errors import EnvironmentInUseError


def owned(prefix: Path, store: Store | None = None) -> Record:
    """Return the record of an environment that this library has made.

    Raises:
        ValueError: it has not made it.
    """
    found = (store or Store()).owner_of(prefix)
    if found is None:
        raise ValueError(
            f"{str(prefix)!r} was not made by this library (Environment.create); use the program "
            f"that has made it"
        )
    return found


def remove(record: Record, store: Store | None = None) -> None:
    """Remove an environment.

    Raises:
        EnvironmentInUseError: it is in use.
        ValueError: it lies where this process may not write.
    """
    # It may lie in another root than the one in which environments are made.
    try:
        is_removed = _remove(record, store or Store(record.root))
    except OSError as error:
        raise ValueError(
            f"the environment {record.name!r} ({record.prefix}) cannot be removed: {error}"
        ) from error
    if not is_removed:
        users = ", ".join(str(process.pid) for process in users_of(record.folder))
        raise EnvironmentInUseError(
            f"the environment {record.name!r} ({record.prefix}) is in use by "
            + (f"the processes {users}" if users else "an executor")
            + "; end them first"
        )


def prune(unused_for: float, store: Store | None = None) -> list[Record]:
    """Remove the environments that were made for their content and have not been used lately.

    Args:
        unused_for: seconds since the last use.
        store: where they are kept.

    Returns:
        Those that were removed.
    """
    store = store or Store()
    removed = []
    for record in list(store.records()):
        if record.named or record.root != str(store.root):
            continue
        idle = time.time() - record.last_used
        # A store that is read-only stays as it is.
        with suppress(OSError):
            if (idle >= unused_for or not record.is_usable()) and _remove(record, store):
                removed.append(record)
    return removed


def _remove(record: Record, store: Store) -> bool:
    """Remove an environment; return False if it is in use."""
    lock = CreationLock(store.lock_of(record.key))
    lock.acquire(Cancellation(), lambda _: None)
    try:
        if users_of(record.folder):
            return False
        # Order: first the record, so that no lookup finds it; a lookup that has found it before
        # takes a lease and looks for its interpreter then.
        store.forget(record)
        if not (record.folder / COMPLETE).exists() or store.discard(record.folder):
            return True
        store.publish(record)  # it is in use all the same
        return False
    finally:
        lock.release()


def lock_text(
    python: str, prefix: Path, variables: Mapping[str, str], store: Store | None = None
) -> str:
    """Return a text from which exactly this environment can be made again.

    Args:
        python: its interpreter.
        prefix: its folder.
        variables: for the process that asks it what it holds.
        store: where made environments are kept.
    """
    record = (store or Store()).owner_of(prefix)
    if record is not None:
        found = record.read_lock()
        if found is not None:
            return found
    held = contents.ask(python, prefix, variables)
    if held.conda:
        if record is not None and (record.spec.get("pypi") or record.spec.get("editable")):
            raise ValueError(
                f"the environment {record.name!r} holds PyPI packages that cannot be locked (their "
                f"archives, or the hashes of these, are not known)"
            )
        return lock_texts.explicit([pin.line() for pin in contents.conda_pins(prefix)])
    return lock_texts.pinned_requirements(held.python, held.pypi)
