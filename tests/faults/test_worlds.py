"""The same attacks where pipes cannot be taken back from, or not be polled.

As on macOS and on Windows.

The choice is read at import, so these run in hosts of their own.
"""

from __future__ import annotations

import pytest

from tests.support.observe import ORPHAN_LIMIT, gone

WORLDS = {
    "plain": {"WETLANDS_EXECUTOR_PLAIN": "1"},
    "threads": {"WETLANDS_EXECUTOR_THREADS": "1"},
    "plain threads": {"WETLANDS_EXECUTOR_PLAIN": "1", "WETLANDS_EXECUTOR_THREADS": "1"},
}


@pytest.fixture(params=WORLDS)
def world(request) -> dict[str, str]:
    return WORLDS[request.param]


def test_smoke(host, world):
    code, out, err = host("smoke", **world).finish(60)
    assert code == 0, err
    assert out.splitlines()[-1] == "well"


@pytest.mark.parametrize("what", ["python", "c", "grandchildren"])
def test_host_is_killed(host, world, what):
    program = host("busy", what, **world)
    processes = set(map(int, program.line().split()))
    program.process.kill()
    assert gone(processes, ORPHAN_LIMIT)


@pytest.mark.parametrize(
    "name", ["finalizers", "interrupted_in_shutdown", "abandoned_by_collector", "forked_errors"]
)
def test_program(host, world, name):
    code, out, err = host(name, **world).finish(60)
    assert code == 0, (out, err)


def test_interrupted_at_every_step(host, world):
    code, out, err = host("interrupted_every_millisecond", 4_000, **world).finish(45)
    assert code == 0, (out, err)
    assert out.splitlines()[-1] == "well"
    assert "timeouts 0 lost 0" in out
    assert "LOGGED" not in out
