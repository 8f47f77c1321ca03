"""Views and calls with blocks that end in the hands of the garbage collector, in circles, in any order."""

from __future__ import annotations

import subprocess
import sys

from tests.contract.meeting import DEADLINE

PROGRAM = """
import gc

import numpy as np
from tests.arena import workload
from wetlands_executor import CondaEnvExecutor


class Holder:
    # Looks at its array when it dies; the collector may have finalized anything else of the circle before.
    seen = []

    def __init__(self, array):
        self.array = array
        self.circle = self

    def __del__(self):
        Holder.seen.append(float(self.array.sum()))


def main():
    for _ in range(20):
        executor = CondaEnvExecutor(max_workers=1)
        holders = [Holder(executor.submit(workload.add_one, np.zeros(100_000)).result()) for _ in range(5)]
        waiting = [executor.submit(workload.add_one, np.zeros(100_000)) for _ in range(5)]
        circle = [executor, holders, waiting]
        circle.append(circle)
        executor.kill_workers()
        executor.shutdown()
        del executor, holders, waiting, circle
        gc.collect()
    assert Holder.seen == [100_000.0] * 100, Holder.seen


main()
gc.collect()
"""


def test_finalizers_find_the_memory_there() -> None:
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", PROGRAM], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
