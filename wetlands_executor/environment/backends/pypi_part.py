"""The PyPI packages of an environment of conda packages.

In the order that the ecosystem uses: conda first, then PyPI against what is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

from wetlands_executor.environment.backends.lock_texts import Locked
from wetlands_executor.environment.backends.pip import PipBackend
from wetlands_executor.environment.backends.protocol import InstallRequest
from wetlands_executor.environment.backends.requirements import wanted_lines
from wetlands_executor.environment.backends.uv import UvBackend, program
from wetlands_executor.environment.layout import interpreter_of
from wetlands_executor.environment.spec import CONDA_LOCKS, EnvironmentSpec


def lacks(spec: EnvironmentSpec) -> str | None:
    """Return why the PyPI part cannot be installed; None if it can, or there is none."""
    if spec.lock is not None and spec.lock_format not in CONDA_LOCKS:
        return "a lock of PyPI packages says nothing of conda packages"
    if program() is not None or not (wanted_lines(spec) or spec.lock_format == "pixi"):
        return None
    return PipBackend().lacks_options(spec)


def install(request: InstallRequest) -> Sequence[Locked] | None:
    """Install the PyPI part beside the conda packages.

    Returns:
        What was installed, for a lock; None if that cannot be locked.

    Raises:
        EnvironmentCreationError: it cannot be installed.
    """
    spec = request.spec
    if spec.lock_format != "pixi" and not wanted_lines(spec):
        return ()
    interpreter = interpreter_of(str(request.prefix))
    if interpreter is None:
        message = "the environment has no Python; add it to the conda packages"
        raise request.creation.failure(message)
    if program() is not None:
        return UvBackend().install_beside(request, interpreter)
    return PipBackend().install_beside(request, interpreter)
