"""Hosts that are killed, that fork, and whose main thread is interrupted at every step."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.observe import ORPHAN_LIMIT, gone


def numbers(line: str) -> set[int]:
    return set(map(int, line.split()))


@pytest.mark.parametrize("what", ["idle", "python", "c", "grandchildren", "output", "starting"])
def test_host_is_killed(host, what):
    """Guarantee 4: two seconds later no process is left, whatever it was doing."""
    program = host(what) if what in ("idle", "starting") else host("busy", what)
    processes = numbers(program.line())
    assert len(processes) == (4 if what == "grandchildren" else 2)
    began = time.monotonic()
    program.process.kill()
    assert gone(processes, ORPHAN_LIMIT)
    assert time.monotonic() - began < ORPHAN_LIMIT


def test_host_is_killed_while_it_starts_workers(host):
    """At any moment of a start, the interpreter's own first steps included.

    The leak fixture finds who is left.
    """
    for turn in range(6):
        program = host("spawning")
        program.line()
        time.sleep(turn * 0.01)  # the moment of the kill is the point
        program.process.kill()
        program.close()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGINT], ids=lambda number: number.name
)
def test_host_dies_of_another_signal(host, number):
    program = host("busy", "c")
    processes = numbers(program.line())
    program.process.send_signal(number)
    if number == signal.SIGINT:
        return  # Python's exit waits for what runs, as the standard library's; `Host.close` ends it
    assert gone(processes, ORPHAN_LIMIT)


def test_forked_child_gets_errors_and_parent_is_unharmed(host):
    code, out, err = host("forked_errors").finish()
    assert code == 0, err
    found = dict(line.split() for line in out.splitlines())
    assert found.pop("parent") == "well"
    assert set(found.values()) == {"0"}, (found, err)


def test_forked_child_leaves_its_own_files_alone(host, tmp_path):
    code, out, err = host("forked_strangers", tmp_path).finish()
    assert (code, out) == (0, "0\n"), err


def test_forked_child_keeps_no_descriptor(host):
    code, out, err = host("forked_descriptors").finish(60)
    assert (code, out) == (0, "0\n"), err


@pytest.mark.parametrize("when", ["idle", "busy", "starting"])
def test_forked_child_keeps_no_worker_alive(host, when):
    program = host("fork_and_be_killed", when)
    child, *workers = map(int, program.line().split())
    try:
        program.process.kill()
        assert gone(workers, ORPHAN_LIMIT)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_interrupted_at_every_step(host):
    """An exception a thousand times a second, in submit, result, cancel, wait, map."""
    code, out, err = host("interrupted_every_millisecond", 20_000).finish(45)
    assert code == 0, (out, err)
    found = out.splitlines()
    assert found[-1] == "well", (out, err)
    counts = dict(zip(found[-2].split()[::2], map(int, found[-2].split()[1::2])))
    assert (counts["calls"], counts["timeouts"], counts["lost"]) == (20_000, 0, 0), out
    assert counts["interrupted"] > 100, "it has to be interrupted"
    assert len(found) == 2, out


def test_interrupted_in_shutdown(host):
    code, out, err = host("interrupted_in_shutdown").finish()
    assert (code, out.splitlines()) == (0, ["600", "True 8 0"]), (out, err)


def test_finalizers_that_call_the_executor(host):
    code, out, err = host("finalizers").finish(60)
    assert (code, out) == (0, "True 0\n"), (out, err)


def test_executors_abandoned_to_the_collector(host):
    code, out, err = host("abandoned_by_collector").finish()
    assert (code, out) == (0, "12\n"), (out, err)
