"""Task definitions for the tests, in a module that workers and processes import.

Standard library and the library itself only, Python 3.8 or newer.
"""

import os
import time

from wetlands_executor.tasks import get_task_controller, get_task_inputs, task

#: Seconds after which a function gives up: the test is long dead then.
LONGEST_WAIT = 60.0


@task
def train(epochs, rate=0.5, **more):
    """Report, and return what it was given."""
    controller = get_task_controller()
    for epoch in range(1, epochs + 1):
        controller.set_progress(epoch / epochs)
        controller.set_status(f"epoch {epoch}")
        controller.set_output({"epoch": epoch})
    return get_task_inputs(), train.name, os.getpid(), controller.id


@task(id="patient", name="A patient one")
def wait_for_stop(acknowledge=True):
    """Go on until it is asked to stop."""
    controller = get_task_controller()
    controller.set_status("ready")
    deadline = time.monotonic() + LONGEST_WAIT
    while not controller.should_stop and time.monotonic() < deadline:
        time.sleep(0.002)  # the flag is there to be looked at; nothing announces it
    if acknowledge:
        controller.set_status(canceled())
    return "stopped"


class canceled:  # noqa: N801 - stands for a member of TaskStatus, which a worker need not have
    """As ``TaskStatus.CANCELED``."""

    value = "canceled"


@task
def fail():
    """Raise."""
    raise LookupError("on purpose")


def untouched(number):
    """Stand beside definitions: its module is imported where the package may not be."""
    return number, type(train).__name__, train.local.__name__
