"""scipy, pandas, PIL and xarray between different versions of each.

``pytest -m heavy tests/data`` (installs about 1 GB).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.data.environments import HOST, CannotMake, Environments

pytest.importorskip("numpy", reason="numpy is not installed here, and names the cases")

from tests.data import heavy_cases

pytestmark = [pytest.mark.heavy, pytest.mark.registry, pytest.mark.timeout(900)]

LIMIT = 300
_COMMON = ("pillow", "python-dateutil", "tzdata", "six", "packaging", *HOST)
_OLD = ("numpy==1.26.*", "pandas==2.2.*", "scipy==1.11.*", "xarray==2024.7.*", "pytz", *_COMMON)
_MIDDLE = ("numpy==2.2.*", "pandas==2.3.*", "scipy==1.15.*", "xarray", "pytz", *_COMMON)
_NEW = ("numpy>=2", "pandas>=3", "scipy", "xarray", *_COMMON)
SIDES = {
    "old": (("3.9",), _OLD),
    "middle": (("3.12", "3.11"), _MIDDLE),
    "new": (("3.13", "3.12"), _NEW),
}
#: (host, worker)
PAIRS = (("new", "new"), ("middle", "old"), ("new", "old"), ("new", "middle"), ("middle", "new"))


@pytest.fixture(scope="session")
def exchanged(environments: Environments) -> dict[tuple[str, str], dict[str, Any] | str]:
    """What each pair has found, as far as it was asked for."""
    return {}


def _exchange(environments: Environments, pair: tuple[str, str]) -> dict[str, Any] | str:
    try:
        host, worker = (environments.python(*SIDES[side]) for side in pair)
    except CannotMake as reason:
        return str(reason)
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [host, "-W", "ignore", "-m", "tests.data.exchange", "tests.data.heavy_cases", worker]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, f"the host of {pair} failed:\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", heavy_cases.CASES)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def test_heavy(
    environments: Environments,
    exchanged: dict[tuple[str, str], dict[str, Any] | str],
    pair: tuple[str, str],
    name: str,
) -> None:
    """It arrives whole, or the error names both versions and the way out; never something else."""
    if pair not in exchanged:
        exchanged[pair] = _exchange(environments, pair)
    found = exchanged[pair]
    if isinstance(found, str):
        pytest.skip(found)
    same_pandas = (
        found["versions"]["host"].partition(".")[0] == found["versions"]["worker"].partition(".")[0]
    )
    for direction, outcome in found[name].items():
        if outcome == "ok":
            continue
        assert not outcome.startswith("differs"), f"{direction}: {outcome}"
        assert not name.startswith(("PIL", "scipy.sparse", "scipy piecewise", "pandas as")), (
            f"{direction}: {outcome}"
        )
        # pandas 2.3 gave its own strings a state that 2.2 cannot read.
        assert not (name.startswith("pandas") and same_pandas and name != "pandas string"), (
            f"{direction}: {outcome}"
        )
        assert pair[0] != pair[1], f"{direction}: {outcome}"
        lacks = re.search(
            r"needs a package that this process lacks, pytz \(the environment has "
            r"pytz [\d.]+\)",
            outcome,
        )
        assert lacks or re.search(
            r" is \d[\w.]* in this process and (\d[\w.]*|none) in the "
            r"worker's environment",
            outcome,
        ), f"{direction}: {outcome}"
        assert re.search(r"same version|install it (here|there)|Pass builtin", outcome), (
            f"{direction}, no remedy: {outcome}"
        )
