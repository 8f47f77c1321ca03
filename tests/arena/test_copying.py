"""Copies with several threads.

Right at every size, with fewer threads than wanted, and never going on after an interrupt.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.arena import copies, workload
from tests.support.rendezvous import DEADLINE
from wetlands_executor.pool import bundle
from wetlands_executor.worker import shm_copy


@pytest.mark.parametrize("check", copies.CHECKS, ids=lambda check: check.__name__)
def test_here(check):
    check(shm_copy)


def test_in_every_python(anypython):
    folder = shm_copy.__file__.rpartition("/")[0]
    command = [anypython.path, "-I", "-B", "-W", "error", copies.__file__, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.stdout == "well\n", done.stderr


def test_on_both_sides(make, memory):
    """Large enough that both copy with helpers, where there is more than one processor."""
    np = pytest.importorskip("numpy")
    value = np.arange(shm_copy.CROSSOVER // 8 + 1234.0)
    result = make().submit(workload.twice, value).result(DEADLINE)
    assert (result == 2 * value).all()
    del result
    assert memory.is_free()


def test_a_worker_starts_without_it():
    """It is among what is sent, but nothing imports it, nor ``ctypes``, before the first large
    buffer.
    """
    assert b"\0shm_copy\0" in bundle.source()
    program = (
        "import sys\nfrom wetlands_executor import CondaEnvExecutor\n"
        "with CondaEnvExecutor(max_workers=1) as executor:\n"
        '    print(executor.submit(eval, \'[name for name in __import__("sys").modules if '
        '"shm_copy" in name or name == "ctypes"]\').result())\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
