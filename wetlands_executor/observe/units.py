"""Durations, rates and amounts in few characters. ASCII only, so that every terminal can show them.

Pure. Any thread.
"""

from __future__ import annotations

import math


def duration(seconds: float | None) -> str:
    """Write a duration in seconds: ``0:04``, ``12:30``, ``1:02:05``, ``3d 04:00``; ``-:--``."""
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    whole = max(int(seconds), 0)
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{left:02d}"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}:{minutes:02d}:{left:02d}"
    return f"{hours // 24}d {hours % 24:02d}:{minutes:02d}"


def rate(per_second: float | None) -> str:
    """Write a rate: ``12.3/s``, ``4.1k/s``; slow ones as ``8.2 s each``; empty if unknown."""
    if not per_second or not math.isfinite(per_second):
        return ""
    if per_second < 0.5:
        seconds = 1 / per_second
        return f"{seconds:.1f} s each" if seconds < 100 else f"{duration(seconds)} each"
    for unit in ("", "k", "M"):
        if per_second < 100:
            return f"{per_second:.1f}{unit}/s"
        if per_second < 1000:
            return f"{per_second:.0f}{unit}/s"
        per_second /= 1000
    return f"{per_second:.0f}G/s"


def amount(count: int | None) -> str:
    """Write an amount of memory in bytes: ``312 MB``; empty if unknown."""
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def percent(done: float, total: float | None) -> str:
    """Write a share: ``24%``; 100% only if nothing is left; empty if the total is unknown."""
    if not total:
        return ""
    share = min(max(done / total, 0.0), 1.0)
    return f"{min(math.floor(100 * share), 100)}%"


def number(value: float) -> str:
    """Write a number as it was reported, without a fraction of zero."""
    return f"{value:g}" if isinstance(value, float) else str(value)
