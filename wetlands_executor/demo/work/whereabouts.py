"""Say where a piece of the demo ran: interpreter, package versions, process, time.

The other files of this folder import it as a sibling, inside the environments of the demo. The host
never imports it, and it needs nothing but the standard library.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata

_SHOWN = ("numpy", "scikit-image", "scikit-learn", "scipy", "pillow")


def whereabouts(started: float) -> dict[str, object]:
    """Describe this process and the call that began at ``started``.

    Args:
        started: ``time.time()`` at the start of the call, in seconds.

    Returns:
        Plain data: ``python``, ``prefix``, ``packages`` (name to version), ``pid``, ``started`` and
            ``finished`` (seconds since the epoch).
    """
    installed = {
        (found.metadata["Name"] or "").lower(): found.version for found in metadata.distributions()
    }
    return {
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "packages": {name: installed[name] for name in _SHOWN if name in installed},
        "pid": os.getpid(),
        "started": started,
        "finished": time.time(),
    }
