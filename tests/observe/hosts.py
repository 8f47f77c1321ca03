"""Programs that show progress, run in processes of their own by ``test_terminal.py``.

``python -m tests.observe.hosts NAME [ADDRESS]``; the address is that of the test's rendezvous.
"""

from __future__ import annotations

import logging
import os
import sys

from tests.contract.workload import arrive
from tests.support.programs import fork
from wetlands_executor import CondaEnvExecutor, current_task
from wetlands_executor.observe import progress


def work(address, number):
    """Report, print, log, and wait for the test."""
    current_task().update(f"slice {number} of 8", current=number, maximum=8)
    print(f"printed by {number}\nand again by {number}")
    logging.getLogger("tests.observe").warning("logged by %d", number)
    arrive(address, number)
    if number == 3:
        raise ValueError("three is too many")
    return number


def quiet_work(address, number):
    """Report, and wait for the test."""
    current_task().update("alone", current=1, maximum=2)
    return arrive(address, number)


def several(address):
    """Two workers, four tasks, a log handler that was made before, prints of the host."""
    logging.basicConfig(format="RECORD %(message)s")
    with CondaEnvExecutor(max_workers=2) as executor, progress(executor, description="cells"):
        print("the host begins")
        tasks = executor.map_tasks(work, [address] * 4, range(4))
        for task in tasks:
            task.wait_for()
        print("the host ends", end="")
    print(f"\nafter: {type(sys.stdout).__name__} {logging.root.handlers[0].stream is sys.stderr}")


def failing(address):
    """The block ends with an exception."""
    with CondaEnvExecutor(max_workers=1) as executor, progress(executor):
        executor.submit(quiet_work, address, 0).result()
        raise LookupError("in the block")


def nested(address):
    """Two executors in one display, a loop, and a loop in the loop."""
    with CondaEnvExecutor(max_workers=1) as one, CondaEnvExecutor(max_workers=1) as two:
        with progress(one, two):
            tasks = [each.submit(quiet_work, address, "both") for each in (one, two)]
            for task in tasks:
                task.wait_for()
        for number in progress(range(2), description="outer"):
            for _ in progress(one.map(quiet_work, [address], [number]), description="inner"):
                pass
        for task in progress([two.submit(quiet_work, address, "last")], description="tasks"):
            print("came", task.result())


def left_open():
    """The program ends without leaving its block."""
    executor = CondaEnvExecutor(max_workers=1)
    progress(executor, description="open").__enter__()
    print("result", executor.submit(abs, -3).result())
    sys.exit(7)


def killed(address):
    """It waits, and is killed."""
    with CondaEnvExecutor(max_workers=1) as executor, progress(executor):
        executor.submit(quiet_work, address, 0).result()


def forks(address):
    """A child process prints while the display is open."""
    with CondaEnvExecutor(max_workers=1) as executor, progress(executor):
        task = executor.submit(quiet_work, address, 0)
        child = fork()
        if not child:
            print("the child prints", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        task.result()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
