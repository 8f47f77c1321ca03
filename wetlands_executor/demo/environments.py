"""Decide which two environments the demo needs on this machine, and make those that are missing.

The two conflict on purpose: what the *older* one pins, the *newer* one excludes, so no single
environment could hold both.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wetlands_executor.demo import interpreters
from wetlands_executor.demo.cache import Slot
from wetlands_executor.demo.creation import Creation, DemoError, RegistryUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wetlands_executor.demo.interpreters import Interpreter
    from wetlands_executor.demo.progress import Progress

# The oldest pair of releases with wheels for a Python 3.x, by the last x for which they have them.
_OLDER: tuple[tuple[int, tuple[str, ...]], ...] = (
    (12, ("numpy==1.26.*", "scikit-image==0.22.*")),
    (13, ("numpy==2.1.*", "scikit-image==0.25.*")),
    (99, ("numpy==2.3.*", "scikit-image>=0.26")),
)
# What excludes it.
_NEWER_NUMPY = {
    "numpy==1.26.*": "numpy>=2.1,<3",
    "numpy==2.1.*": "numpy>=2.3,<3",
    "numpy==2.3.*": "numpy>=2.4,<3",
}
_OLDER_IMPORTS = ("numpy", "scipy.ndimage", "skimage.io", "skimage.segmentation")
_NEWER_IMPORTS = ("numpy", "sklearn.cluster", "sklearn.decomposition", "PIL.ImageFont")
_TICK = 0.2  # seconds between two drawings of the progress line


@dataclass(frozen=True, slots=True)
class MadeEnvironment:
    """An environment that is ready.

    Attributes:
        role: ``older`` or ``newer``.
        prefix: its folder.
        requirements: what was asked for in it.
        seconds: how long it took to make; 0 if it was there already.
    """

    role: str
    prefix: Path
    requirements: tuple[str, ...]
    seconds: float


def prepare(
    folder: Path, progress: Progress, *, refresh: bool = False
) -> tuple[MadeEnvironment, MadeEnvironment]:
    """Give the two environments, made if need be.

    Args:
        folder: the cache.
        progress: where to say what goes on.
        refresh: make them anew even if they are there.

    Raises:
        DemoError: one could not be made.
    """
    chosen: list[Slot | Creation] = []
    try:
        for role in ("older", "newer"):
            chosen.append(_choose(folder, role, chosen, refresh))
        return _pair(_finish(chosen, progress))
    except RegistryUnreachableError:
        raise
    except DemoError as error:
        this = _this_interpreter()
        others = [
            choice
            for choice in chosen
            if isinstance(choice, Creation) and this and choice.interpreter.minor != this.minor
        ]
        if this is None or not others:
            raise
        progress.say(f"  {error}\n  Trying again with this interpreter ({this}) alone.")
        older = _slot_or_creation(folder, "older", this, older_requirements(this.minor), refresh)
        newer = _slot_or_creation(
            folder, "newer", this, newer_requirements(older_requirements(this.minor)), refresh
        )
        return _pair(_finish([older, newer], progress))


def older_requirements(minor: int) -> tuple[str, ...]:
    """Give what the older environment holds on Python 3.``minor``."""
    return next(requirements for last, requirements in _OLDER if minor <= last)


def newer_requirements(older: tuple[str, ...]) -> tuple[str, ...]:
    """Give what the newer environment holds: a numpy that ``older`` excludes."""
    return (_NEWER_NUMPY[older[0]], "scikit-learn>=1.5", "pillow>=10.1")


def _minors(role: str) -> Iterator[int]:
    """List the minor versions of Python to try for a role, best first.

    The older environment prefers a Python other than this one, which shows best that the two have
    nothing in common; the newer one prefers this Python.
    """
    this = sys.version_info[1]
    others = [minor for minor in (10, 11, 12) if minor != this]
    yield from [*others, this, 13, 14] if role == "older" else [this, *reversed(others), 13, 14]


def _choose(
    folder: Path, role: str, before: list[Slot | Creation], refresh: bool
) -> Slot | Creation:
    """Choose the interpreter of one environment.

    One whose environment exists already, else the first that works.
    """
    older = _slot_of(before[0]).requirements if before else None
    for minor in dict.fromkeys(_minors(role)):
        requirements = older_requirements(minor) if older is None else newer_requirements(older)
        slot = Slot(folder, role, minor, requirements)
        if not refresh and slot.ready() is not None:
            return slot
        interpreter = interpreters.find(minor)
        if interpreter is not None:
            return _slot_or_creation(folder, role, interpreter, requirements, refresh)
    raise DemoError(
        "no Python from 3.10 to 3.14 on this machine can make a virtual environment (it takes "
        "venv, ensurepip and ssl). "
        "On Debian and Ubuntu, install the package python3-venv."
    )


def _slot_or_creation(
    folder: Path, role: str, interpreter: Interpreter, requirements: tuple[str, ...], refresh: bool
) -> Slot | Creation:
    """Give the slot if its environment is ready, else what makes it."""
    slot = Slot(folder, role, interpreter.minor, requirements)
    if refresh:
        slot.forget()
    if slot.ready() is not None:
        return slot
    return Creation(slot, interpreter, _OLDER_IMPORTS if role == "older" else _NEWER_IMPORTS)


def _this_interpreter() -> Interpreter | None:
    """Give the Python that runs the demo, if it can make environments."""
    return interpreters.find(sys.version_info[1])


def _slot_of(choice: Slot | Creation) -> Slot:
    return choice if isinstance(choice, Slot) else choice.slot


def _pair(made: list[MadeEnvironment]) -> tuple[MadeEnvironment, MadeEnvironment]:
    return made[0], made[1]


def _finish(chosen: list[Slot | Creation], progress: Progress) -> list[MadeEnvironment]:
    """Run what has to be made, side by side, and show how far it is."""
    creations = [choice for choice in chosen if isinstance(choice, Creation)]
    for creation in creations:
        _make_folder(creation.slot.folder)
        wanted = ", ".join(creation.slot.requirements)
        progress.say(
            f"  making the {creation.slot.role} environment with {creation.interpreter} "
            f"({creation.interpreter.executable}): {wanted}"
        )
    if creations:
        _run(creations, progress)
    made = []
    for choice in chosen:
        slot = _slot_of(choice)
        prefix = slot.ready()
        if prefix is None:
            raise DemoError(
                f"the environment '{slot.role}' vanished from {slot.folder} while the "
                f"demo was starting; run it again"
            )
        seconds = choice.seconds if isinstance(choice, Creation) else 0.0
        made.append(MadeEnvironment(slot.role, prefix, slot.requirements, seconds))
    return made


def _run(creations: list[Creation], progress: Progress) -> None:
    """Wait for the creations.

    On an interrupt or the failure of one, stop all and leave no process.
    """
    with ThreadPoolExecutor(len(creations), thread_name_prefix="demo-environment") as threads:
        running: dict[Future[Path], Creation] = {
            threads.submit(creation.run): creation for creation in creations
        }
        pending = set(running)
        try:
            while pending:
                done, pending = wait_for(pending, timeout=_TICK, return_when="FIRST_COMPLETED")
                for future in done:
                    future.result()
                    progress.say(
                        f"  the {running[future].slot.role} environment is ready after "
                        f"{running[future].seconds:.0f} s"
                    )
                told = "; ".join(
                    f"{running[future].slot.role}: {running[future].status}"
                    for future in running
                    if future in pending
                )
                progress.show(f"{progress.elapsed:4.0f} s  {told}")
        finally:
            progress.clear()
            for creation in creations:
                creation.stop()


def _make_folder(folder: Path) -> None:
    """Make the cache folder, or say why that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(
            f"cannot make the cache folder {folder}: {error.strerror}. Choose another "
            f"one with --cache"
        ) from error
