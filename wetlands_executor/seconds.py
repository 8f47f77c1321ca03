"""Numbers of seconds as users give them.

Checked and made exact floats at once, so that no timer meets anything else later.

Owns no state. Entered by any thread. Imports nothing of this package, so that every module may use
it.
"""

from __future__ import annotations

import math
import threading
from typing import Any

#: Seconds that one wait of the operating system may last. Longer waits are made of several.
LONGEST = 1_000_000.0


def limit(key: str, value: Any) -> float | None:
    """Return a time limit as an exact float; None for none, and for infinity.

    Args:
        key: name of the parameter, for the error.
        value: an int, float, Decimal, Fraction, numpy scalar, or any other real number.

    Raises:
        TypeError: it is no real number. A bool is none, and neither is text.
        ValueError: it is not greater than 0, or no number (NaN).
    """
    if value is None:
        return None
    seconds = _real(key, value)
    if not seconds > 0:
        raise ValueError(f"{key} must be greater than 0 seconds, not {value!r}")
    return None if math.isinf(seconds) else seconds


def wait(key: str, value: Any) -> float | None:
    """Return how long a wait may last as an exact float; None for no limit.

    What is below 0 is over at once, as in the standard library.

    Args:
        key: name of the parameter, for the error.
        value: as for ``limit``.

    Raises:
        TypeError: as for ``limit``.
        ValueError: it is no number (NaN).
    """
    if value is None:
        return None
    seconds = _real(key, value)
    if seconds != seconds:
        raise ValueError(f"{key} must be a number of seconds, not {value!r}")
    return None if seconds == math.inf else seconds


def _real(key: str, value: Any) -> float:
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if isinstance(value, float):
        return float.__float__(value)  # past a ``__float__`` of its class
    try:
        if isinstance(value, (bool, str, bytes, bytearray, complex)) or kind.__name__ in (
            "bool",
            "bool_",
            "ndarray",
        ):
            raise TypeError
        return float(value)
    except OverflowError:  # an int or a Fraction beyond the range of floats
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{key} must be a number of seconds, not {value!r}") from None


def for_lock(seconds: float) -> float:
    """Return what ``lock.acquire(timeout=...)`` takes."""
    return min(max(seconds, 0.0), threading.TIMEOUT_MAX)
