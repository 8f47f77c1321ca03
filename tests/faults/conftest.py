"""What the fault tests change of the shared fixtures."""

from __future__ import annotations

import sys

import pytest

from tests.support import sharing
from tests.support.fixtures import executor, host, host_programs, make, rendezvous, single  # noqa: F401
from wetlands_executor import CondaEnvExecutor

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]  # signals, /proc and pidfds of Linux


@pytest.fixture
def default_workers() -> int:
    """Two, so that there is one that the fault does not concern."""
    return 2


@pytest.fixture
def executor_class() -> type[CondaEnvExecutor]:
    """With forked workers if the environment asks for them."""
    return sharing.CondaEnvExecutor
