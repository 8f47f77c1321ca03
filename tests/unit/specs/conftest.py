"""What the tests of specs share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.specs.files import Folder

#: Examples of one run of a property. They are others in each run; ``.ci/run`` takes 200.
EXAMPLES = int(os.environ.get("WETLANDS_EXAMPLES", "5"))
# A busy machine may take its time for one example; nothing is remembered from run to run.
settings.register_profile(
    "specs", deadline=None, database=None, max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("specs")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for the files of one test."""
    return Folder(tmp_path)
