"""Make an environment, once: look it up, else lock, make, check, and record it in one step.

Owns the order of these steps. What makes it is a backend; where it is kept is the store's matter.

Guarantee: a lookup finds an environment only after it was checked. Whatever ends a creation before
(SIGKILL, Ctrl-C, a cancellation, a full disk, a network that is gone) leaves a folder that no
record names; the next creation of that key removes it.

Any thread and any process may enter. One of those that want the same environment makes it; the
others wait and then find it.
"""

from __future__ import annotations

import time
from pathlib import Path

from wetlands_executor.environment import contents
from wetlands_executor.environment.backends import requirements
from wetlands_executor.environment.backends.choose import choose
from wetlands_executor.environment.backends.protocol import Backend, InstallRequest
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.create_request import CreateRequest
from wetlands_executor.environment.creation_run import CreationPhase, CreationRun, OnProgress
from wetlands_executor.environment.layout import interpreter_of
from wetlands_executor.environment.locks import CreationLock
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.store import (
    Record,
    Store,
    check_name,
    new_record,
    remove_folder,
)


def create(
    request: CreateRequest,
    *,
    on_progress: OnProgress | None = None,
    cancellation: Cancellation | None = None,
    store: Store | None = None,
) -> Record:
    """Return the environment that is asked for, made if need be.

    Args:
        request: what is wanted.
        on_progress: is told how far it is, in this thread; what it raises ends the creation.
        cancellation: ends it from another thread.
        store: where environments are kept; None is the usual place.

    Raises:
        EnvironmentCreationError: it cannot be made.
        CancelledError: it was cancelled.
        ValueError: the name cannot be given, or there is no such backend.
    """
    if request.name is not None:
        check_name(request.name)
    store = store if store is not None else Store()
    cancellation = cancellation if cancellation is not None else Cancellation()
    found = request.look_up(store)
    if found is not None:
        found.note_use()
        return found
    backend = choose(request.spec, request.backend)
    store.prepare()
    creation = CreationRun(
        store.log_of(request.key), on_progress, cancellation, offline=request.offline
    )
    lock = CreationLock(store.lock_of(request.key))
    try:
        lock.acquire(
            cancellation,
            lambda owner: creation.report(
                CreationPhase.WAITING, f"waiting for {owner}, which makes this environment"
            ),
        )
    except OSError as error:
        raise creation.failure(f"the cache cannot be written: {error}") from error
    try:
        # Race: another process may have made it between the look and the lock.
        found = request.look_up(store)
        if found is None:
            found = _make(request, store, creation, backend)
        found.note_use()
    finally:
        lock.release()
    return found


def _make(request: CreateRequest, store: Store, creation: CreationRun, backend: Backend) -> Record:
    """Make, check and record an environment. The caller holds its lock."""
    started = time.monotonic()
    creation.backend = backend.name
    before = store.named(request.name) if request.name is not None else None
    store.sweep(request.key, before)
    folder: Path | None = None
    try:
        creation.log.write_bytes(b"")
        folder = store.begin(request.key)
        record = new_record(
            store.root, request.name, request.digest, folder,
            backend=backend.name, python="", seconds=0.0, spec=request.spec.as_dict(),
        )  # fmt: skip
        scratch = folder / "scratch"
        scratch.mkdir()
        made = backend.make(InstallRequest(request.spec, record.prefix, scratch, creation))
        creation.report(CreationPhase.CHECKING, "whether it is what was asked for")
        contents.write_variables(record.prefix, request.spec.variables)
        python = _check(request.spec, record.prefix, creation)
        if made.lock is not None:
            (folder / "lock").write_text(made.lock, encoding="utf-8")
        remove_folder(scratch)
        creation.cancellation.check()
        record = new_record(
            store.root, request.name, request.digest, folder,
            backend=made.backend, python=python, seconds=time.monotonic() - started,
            spec=record.spec,
        )  # fmt: skip
        store.publish(record)
    except OSError as error:
        # A full disk, above all; the errors of backends are none of these.
        _remove(folder)
        raise creation.failure(f"the environment cannot be written: {error}") from error
    except BaseException:
        _remove(folder)
        raise
    if before is not None:
        store.discard(before.folder)
    return record


def _remove(folder: Path | None) -> None:
    if folder is not None:
        remove_folder(folder)


def _check(spec: EnvironmentSpec, prefix: Path, creation: CreationRun) -> str:
    """Start the interpreter and look for what was asked for; return the version of Python."""
    interpreter = interpreter_of(str(prefix))
    if interpreter is None:
        raise creation.failure(
            f"{creation.backend} has made an environment without Python; add it to the packages"
        )
    answer = creation.run([interpreter, "-I", "-c", contents.QUESTION], separate=True)
    try:
        found = contents.read_answer(answer, prefix)
    except (ValueError, IndexError) as error:
        raise creation.failure("its interpreter answers something that cannot be read") from error
    markers = (
        requirements.markers_of(interpreter, creation)
        if any(";" in text for text in spec.pypi)
        else {}
    )
    wrong = contents.missing(spec, found, markers)
    if wrong:
        raise creation.failure("it does not hold what was asked for: " + "; ".join(wrong))
    return found.python
