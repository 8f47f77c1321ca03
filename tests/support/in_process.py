"""``InProcessExecutor`` as the fixtures make executors: with an environment, which is this one."""

from __future__ import annotations

from typing import Any

import pytest

from wetlands_executor import InProcessExecutor

#: Arguments that both kinds take.
KNOWN = {"initializer", "initargs", "task_timeout", "cancel_grace"}


class InProcess(InProcessExecutor):
    """Takes the arguments with which tests make a ``CondaEnvExecutor``."""

    def __init__(self, env: object = None, max_workers: int = 1, **kwargs: Any) -> None:
        if env is not None or set(kwargs) - KNOWN:
            pytest.skip(f"an executor of threads has no {env!r}, {kwargs}")
        super().__init__(max_workers, **kwargs)
