"""What workers take over from this process.

The folders of the user's project, log levels, ``sys.argv``, the main module.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import sys
from typing import Any

from wetlands_executor.serialize import project

_numbers = itertools.count(1)


class HostSettings:
    """The user's project folders and log levels at the time of a call.

    Sent to a worker before the first call that needs them.
    """

    __slots__ = ("content", "data", "number", "seen")

    def __init__(
        self, seen: tuple[list[str], int], content: tuple[list[str], dict[str, int]]
    ) -> None:
        self.number = next(_numbers)
        self.content = content
        self.data = pickle.dumps(content, 4)
        self.seen = seen

    def note_seen(self, seen: Any) -> None:
        """Note that something that was looked at has changed, and the content is the same."""
        self.seen = seen


_current: HostSettings | None = None


def current_settings() -> HostSettings:
    """Return the settings as they are now; the same object as long as nothing changed."""
    global _current  # a cache of one entry; replaced whole, so a race costs a second equal object
    settings = _current
    try:
        levels_seen = _MARK in logging.root._cache  # type: ignore[attr-defined]
    except AttributeError:  # a root of another kind
        levels_seen = False
    if (
        settings is None
        or settings.seen[0] != sys.path
        or settings.seen[1] != len(project.extra_roots)
        or not levels_seen
    ):
        project.note_editable_installs()
        seen = (list(sys.path), len(project.extra_roots))
        paths = list(project.project_paths())
        paths += [root for root in project.extra_roots if root not in paths]
        content = (paths, _log_levels())
        if settings is not None and settings.content == content:
            settings.note_seen(seen)
        else:
            settings = HostSettings(seen, content)
        _current = settings
    return settings


#: ``Logger.setLevel`` clears the caches of all loggers (so that ``isEnabledFor`` asks anew); this
#: mark in the root's cache goes with it.
_MARK = "wetlands_executor"


def _log_levels() -> dict[str, int]:
    """Return the levels of all loggers that have one of their own; "" is the root."""
    cache: dict[Any, Any] | None = getattr(logging.root, "_cache", None)
    if cache is not None:
        cache[_MARK] = True
    disabled = logging.root.manager.disable
    found = {"": max(logging.root.level, disabled + 1 if disabled else 0)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = max(logger.level, disabled + 1 if disabled else 0)
    return found


def arguments_of_host() -> list[str]:
    """Return ``sys.argv`` for the workers, as text only.

    Programs that embed Python may have none.
    """
    return [value for value in getattr(sys, "argv", None) or () if type(value) is str]


def main_of_host() -> tuple[str, str | None, str | None]:
    """Return (prefix of this Python, file of the program or None, module's name or None).

    The module has a name if the program was started with ``python -m``.
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    name = getattr(getattr(main, "__spec__", None), "name", None)
    found = os.path.abspath(file) if type(file) is str else None
    return sys.prefix, found, name if type(name) is str and found is not None else None
