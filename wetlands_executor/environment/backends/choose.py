"""Which backend makes an environment: by what the environment needs, and what is there."""

from __future__ import annotations

from collections.abc import Sequence

from wetlands_executor.environment.backends.mamba import CondaBackend
from wetlands_executor.environment.backends.pip import PipBackend
from wetlands_executor.environment.backends.pixi import PixiBackend
from wetlands_executor.environment.backends.protocol import Backend
from wetlands_executor.environment.backends.rattler import RattlerBackend
from wetlands_executor.environment.backends.uv import UvBackend
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import EnvironmentCreationError


def known_backends() -> Sequence[Backend]:
    """Return all backends, those that are preferred first."""
    managers = map(CondaBackend, ("micromamba", "mamba", "conda"))
    return (UvBackend(), PipBackend(), RattlerBackend(), PixiBackend(), *managers)


def choose(spec: EnvironmentSpec, wanted: str = "auto") -> Backend:
    """Return the backend that makes an environment.

    Args:
        spec: what it should contain.
        wanted: the name of a backend; ``"auto"`` is the first that can make it.

    Raises:
        ValueError: there is no backend of that name.
        EnvironmentCreationError: none can make it; the message says why for each.
    """
    backends = known_backends()
    if wanted != "auto":
        named = [backend for backend in backends if backend.name == wanted]
        if not named:
            names = ", ".join(repr(backend.name) for backend in backends)
            raise ValueError(f"backend={wanted!r} is none of 'auto', {names}")
        backends = named
    reasons = []
    for backend in backends:
        reason = backend.lacks(spec)
        if reason is None:
            return backend
        reasons.append(f"  {backend.name}: {reason}")
    remedy = (
        "Install one of the conda managers, or this library with the extra 'conda' (py-rattler)."
        if spec.needs_conda
        else "Install this library with the extra 'create' (uv)."
    )
    raise EnvironmentCreationError(
        "nothing here can make this environment:\n" + "\n".join(reasons) + f"\n{remedy}",
        backend=None if wanted == "auto" else wanted,
    )
