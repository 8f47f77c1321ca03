"""Moved to ``tests/support/observe.py``; this name stays until all branches use the new one."""

from tests.support.observe import *  # noqa: F403
