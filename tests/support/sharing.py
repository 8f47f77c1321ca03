"""Which executor the tests make.

With ``WETLANDS_TEST_SHARED=1`` in the environment, one whose workers are forked by one process (the
fork server).

Everything that holds for a worker of its own must hold for a forked one, so the contract and fault
tests can be run over both.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import wetlands_executor


class SharedPreload(wetlands_executor.CondaEnvExecutor):
    """A ``CondaEnvExecutor`` that shares a preload unless it is told otherwise."""

    @functools.wraps(wetlands_executor.CondaEnvExecutor.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("preload", ["json"])
        kwargs.setdefault("share_preload", bool(kwargs["preload"]))
        super().__init__(*args, **kwargs)


#: Whether the tests run over forked workers.
SHARED = os.environ.get("WETLANDS_TEST_SHARED") == "1"
#: What a test calls to make an executor.
CondaEnvExecutor: type[wetlands_executor.CondaEnvExecutor] = (
    SharedPreload if SHARED else wetlands_executor.CondaEnvExecutor
)
