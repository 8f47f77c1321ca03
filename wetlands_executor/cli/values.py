"""Values of options, as ``argparse`` reads them: each function returns a reader for ``type=``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Read a whole number within limits."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least or (most is not None and value > most):
            wanted = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {value}")
        return value

    return number


def seconds(text: str) -> float:
    """Read a time in seconds, greater than 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text}")
    return value


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object."""
    import json

    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not JSON ({error}); write for example '{{\"diameter\": 30}}'"
        ) from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a JSON object; write for example '{{\"diameter\": 30}}'"
        )
    return value


def json_or_text(text: str) -> Any:
    """Return the value of a text that is JSON, else the text itself."""
    import json

    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which are words and not JSON."""
    raise ValueError(name)
