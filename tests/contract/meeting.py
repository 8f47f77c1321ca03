"""Moved to ``tests/support/meeting.py``; this name stays until all branches use the new one."""

from tests.support.meeting import *  # noqa: F403
