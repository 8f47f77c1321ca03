"""A cluster of three hosts in network namespaces: a slow link, and one that is cut.

Skipped where namespaces cannot be made.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.network import SCHEDULER, VARIABLES, Network, start
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None, reason="distributed is an extra"
    ),
    pytest.mark.leaks_ok("processes of Dask"),
    pytest.mark.slow,
    pytest.mark.timeout(150),
]


def test_three_hosts_one_slow_link_and_one_that_is_cut(tmp_path: Path) -> None:
    if not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("no ip and tc")
    network = Network(f"wl{os.getpid()}-", 3)
    try:
        network.__enter__()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr!r}")
    processes = []
    try:
        network.slow_down(3, 2000)
        center = network.namespace(0)
        options = ("--host", SCHEDULER, "--port", "8786", "--no-dashboard")
        processes.append(start(center, "scheduler", *options))
        for host in (1, 2, 3):
            options = ("--host", f"10.77.0.{host + 1}", "--nthreads", "1", "--no-dashboard")
            options += ("--local-directory", str(tmp_path), "--death-timeout", "30")
            address = f"tcp://{SCHEDULER}:8786"
            processes.append(start(network.namespace(host), "worker", address, *options))
        spaces = [network.namespace(host) for host in (1, 2, 3)]
        done = subprocess.run(
            ["ip", "netns", "exec", center, sys.executable, "-W", "ignore",
             "-m", "tests.cluster.network", center, *spaces],
            cwd=ROOT,
            env={**os.environ, **VARIABLES},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )  # fmt: skip
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        network.__exit__()
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "sum": sum(range(10_000)),
        "namespaces": 3,
        "errors": ["WorkerCrashed"],
        "begun": list(range(9)),
        "after": 32,
    }
