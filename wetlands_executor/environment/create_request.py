"""What ``create`` is asked for, and the look at whether it is there already: only reads."""

from __future__ import annotations

from typing import NamedTuple

from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.store import Record, Store, key_of


class CreateRequest(NamedTuple):
    """What a caller of ``create`` asks for.

    Attributes:
        spec: what the environment should contain.
        name: its name; None: it is one of those that are cached by content.
        backend: who makes it; ``"auto"`` is the first that can.
        offline: no network may be used.
        replace: an environment of that name may hold something else, and is replaced.
    """

    spec: EnvironmentSpec
    name: str | None = None
    backend: str = "auto"
    offline: bool = False
    replace: bool = False

    @property
    def digest(self) -> str:
        """The digest of its content on this platform."""
        return key_of(self.spec.digest())

    @property
    def key(self) -> str:
        """Name of its lock, its log, and its creations."""
        return self.digest if self.name is None else f"named-{self.name}"

    def look_up(self, store: Store) -> Record | None:
        """Return the environment if it is there; only reads.

        Raises:
            ValueError: another one has its name.
        """
        if self.name is None:
            return store.cached(self.digest)
        found = store.named(self.name)
        if found is None or found.digest == self.digest:
            return found
        if self.replace:
            return None
        raise ValueError(
            f"there is an environment {self.name!r} that holds something else; change it with "
            f"Environment.find({self.name!r}).update(spec), or give this one another name"
        )
