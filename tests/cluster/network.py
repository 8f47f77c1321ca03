"""Hosts in network namespaces of this machine, and a program that runs among them.

``Network`` makes a namespace for the scheduler and the client, with a bridge, and one for each
host. ``python -m tests.cluster.network`` is the program; its arguments are the namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from typing_extensions import Self

#: So that Dask notices within seconds that a host has gone.
VARIABLES = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "4s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "12s",
}
SCHEDULER = "10.77.0.1"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """A namespace ``<name>0`` with a bridge, and ``<name>1`` and so on for the hosts.

    Args:
        name: begin of the names.
        count: number of hosts.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        center = self.namespace(0)
        ip("netns", "add", center)
        ip("-n", center, "link", "set", "lo", "up")
        ip("-n", center, "link", "add", "bridge", "type", "bridge")
        ip("-n", center, "addr", "add", f"{SCHEDULER}/24", "dev", "bridge")
        ip("-n", center, "link", "set", "bridge", "up")
        for host in range(1, self._count + 1):
            space, port = self.namespace(host), f"port{host}"
            ip("netns", "add", space)
            ip("-n", center, "link", "add", port, "type", "veth", "peer", "eth0", "netns", space)
            ip("-n", center, "link", "set", port, "master", "bridge", "up")
            ip("-n", space, "addr", "add", f"10.77.0.{host + 1}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def namespace(self, number: int) -> str:
        """Return the name of a namespace; 0 is that of the scheduler."""
        return f"{self._name}{number}"

    def slow_down(self, host: int, kilobits: int) -> None:
        """Limit what a host sends, in thousands of bits per second."""
        command = ["tc", "-n", self.namespace(host), "qdisc", "add", "dev", "eth0", "root"]
        command += ["tbf", "rate", f"{kilobits}kbit", "burst", "32kbit", "latency", "400ms"]
        subprocess.run(command, check=True, capture_output=True)

    def __exit__(self, *error: object) -> None:
        for number in range(self._count + 1):
            subprocess.run(
                ["ip", "netns", "del", self.namespace(number)], check=False, capture_output=True
            )


def start(namespace: str, *command: str) -> subprocess.Popen[bytes]:
    """Start a program of Dask in a namespace."""
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "dask", *command],
        env={**os.environ, **VARIABLES},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def note_and_wait(folder: str, number: int, go: str) -> int:
    """Note that it has begun; wait until there is a file."""
    with open(os.path.join(folder, f"{number}-{os.getpid()}"), "x"):
        pass
    while not os.path.exists(go):
        time.sleep(0.02)
    return number


def space_of_this(_: object) -> int:
    """Return a number of the network namespace of this process."""
    time.sleep(0.05)
    return os.stat("/proc/self/ns/net").st_ino


def main(center: str, spaces: list[str]) -> dict[str, Any]:
    """Use the cluster, cut the link of a host while it runs a call, and go on."""
    from distributed import Client

    from wetlands_executor.integrations.dask import DaskEnvExecutor

    found: dict[str, Any] = {}
    folder = tempfile.mkdtemp()
    go = os.path.join(folder, "go")
    client = Client(f"tcp://{SCHEDULER}:8786", timeout="20s")
    client.wait_for_workers(len(spaces), timeout=40)
    executor = DaskEnvExecutor(client)
    found["sum"] = sum(executor.map(abs, range(10_000)))
    seen = {task.result(30) for task in executor.map_tasks(space_of_this, range(30))}
    found["namespaces"] = len(seen)
    notes = os.path.join(folder, "notes")
    os.mkdir(notes)
    begun = threading.Semaphore(0)
    tasks = []
    for number in range(9):
        task = executor.options(start=False).submit(note_and_wait, notes, number, go)
        task.listen(lambda event: begun.release() if event.type.value == "started" else None)
        tasks.append(task.start())
    for _ in spaces:
        begun.acquire(timeout=30)
    ip("-n", center, "link", "set", "port2", "down")
    Path(go).touch()
    errors = [task.exception(60) for task in tasks]
    found["errors"] = [type(error).__name__ for error in errors if error is not None]
    found["begun"] = sorted(int(name.partition("-")[0]) for name in os.listdir(notes))
    found["after"] = executor.submit(pow, 2, 5).result(30)
    ip("-n", center, "link", "set", "port2", "up")
    executor.shutdown()
    client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
