"""scikit-learn over the backend of ``wetlands_executor.integrations.joblib``.

Where it is installed; ``pytest -m heavy tests/integration`` makes environments with it (120 MB).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.environments import HOST, CannotMake, Environments

_SKLEARN = (
    "scikit-learn", "joblib", "cloudpickle", "numpy", "scipy", "threadpoolctl", "narwhals",
)  # fmt: skip
#: Seconds that all cases may take.
LIMIT = 280


def run(python: str | Path, *arguments: str | Path) -> str:
    """Run the program; return the last line that it prints."""
    done = subprocess.run(
        [python, "-m", "tests.integration.sklearn_program", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.skipif(
    not (importlib.util.find_spec("sklearn") and importlib.util.find_spec("joblib")),
    reason="scikit-learn is not installed here",
)
def test_estimators_give_the_same_in_workers() -> None:
    assert run(sys.executable).endswith("cases")


@pytest.mark.heavy
@pytest.mark.registry
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("host", "worker"),
    [
        (("3.12", "3.11"), ("3.12", "3.11")),
        (("3.12", "3.11"), ("3.13", "3.14")),
        (("3.13", "3.14"), ("3.11", "3.12")),
    ],
    ids=["same Python", "newer in the worker", "older in the worker"],
)
def test_estimators_in_another_environment(
    tmp_path_factory: pytest.TempPathFactory, host: tuple[str, ...], worker: tuple[str, ...]
) -> None:
    made = Environments(tmp_path_factory.mktemp("sklearn"))
    try:
        here = made.python(host, (*_SKLEARN, *HOST))
        there = made.python(worker, _SKLEARN)
    except CannotMake as reason:
        pytest.skip(str(reason))
    assert run(here, there).endswith("cases")
