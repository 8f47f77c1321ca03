"""Moved to ``tests/support/recorder.py``; this name stays until all branches use the new one."""

from tests.support.recorder import *  # noqa: F403
