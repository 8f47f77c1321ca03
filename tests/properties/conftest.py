"""How many examples a property is tried with, and that no process is started for them."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.support.no_process import all_starts, refused_starts

__all__ = ["all_starts", "refused_starts"]

#: Examples of one run of a property. They are others in each run; ``.ci/run`` takes 200.
EXAMPLES = int(os.environ.get("WETLANDS_EXAMPLES", "5"))
# A busy machine may take its time for one example; nothing is remembered from run to run.
settings.register_profile(
    "specs", deadline=None, database=None, max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("specs")
