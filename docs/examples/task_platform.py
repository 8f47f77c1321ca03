"""A platform in miniature: runs task definitions as processes, shows their states, stops them.

    python docs/examples/task_platform.py

Needs nothing but wetlands_executor, and an operating system that passes descriptors (not Windows).
"""

import json
import os
import subprocess
import sys
import threading
import time

from wetlands_executor import TaskStatus
from wetlands_executor.tasks import get_task_controller, get_task_inputs, task


@task
def simulate(steps: int, seconds: float = 0.02) -> dict[str, float]:
    """A task as its author writes it; it knows nothing of the platform."""
    controller = get_task_controller()
    for step in range(1, steps + 1):
        if controller.should_stop:
            controller.set_status(TaskStatus.CANCELED)
            return {}
        time.sleep(seconds)
        controller.set_progress(step / steps)
        controller.set_output({"energy": 1 / step})
    return get_task_inputs()


class Job:
    """One run of a definition in a process of its own."""

    def __init__(self, target: str, **inputs: object) -> None:
        self.state: dict[str, object] = {"status": "pending"}
        self.changed = threading.Condition()
        states, write = os.pipe()
        command = [sys.executable, "-m", "wetlands_executor.tasks", "run", target]
        variables = {**os.environ, "WETLANDS_TASK_INPUTS": json.dumps(inputs)}
        self.process = subprocess.Popen(
            [*command, "--state-fd", str(write)], env=variables, pass_fds=[write]
        )
        os.close(write)  # so that the states end with the process
        threading.Thread(target=self.follow, args=(states,)).start()

    def follow(self, states: int) -> None:
        """Keep the latest state; a process that dies without a word has failed."""
        with open(states) as lines:
            for line in lines:
                self.note(json.loads(line))
        if self.process.wait() and self.state["status"] in ("pending", "running"):
            self.note({"status": "failed", "error": f"exit code {self.process.returncode}"})

    def note(self, state: dict[str, object]) -> None:
        with self.changed:
            self.state = state
            self.changed.notify_all()

    def wait_for(self, *statuses: str) -> dict[str, object]:
        with self.changed:
            self.changed.wait_for(lambda: self.state["status"] in statuses)
            return self.state


if __name__ == "__main__":
    short, long = Job(f"{__file__}:simulate", steps=5), Job(f"{__file__}:simulate", steps=10**6)
    long.wait_for("running")
    long.process.terminate()  # asks it to stop
    crash = Job(f"{__file__}:simulate", steps=10**6)
    crash.wait_for("running")
    crash.process.kill()
    for job in (short, long, crash):
        state = job.wait_for("completed", "canceled", "failed")
        print(state["status"], state.get("result"), state.get("error"))
