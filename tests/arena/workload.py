"""What tasks do with arrays and buffers.

Imported by workers of every Python; those without numpy call what does not need it.
"""

from __future__ import annotations

import array
import gc
import hashlib
import os
import pickle
import signal
import sys
import threading
import time

from tests.contract.workload import arrive

kept: list = []


class Buffers:
    """An object with several out-of-band buffers, without numpy."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce_ex__(self, protocol):
        return Buffers, tuple(pickle.PickleBuffer(part) for part in self.parts)


def digest(value):
    return hashlib.sha256(value).hexdigest()


def describe(value):
    """Return type, content hash and whether it can be written."""
    view = memoryview(value)
    return type(value).__name__, digest(view), not view.readonly


def describe_parts(value):
    return [describe(part)[1:] for part in value.parts]


def overwrite_parts(value):
    for part in value.parts:
        view = memoryview(part)
        view[:] = bytes(len(view))
    return value


def make_buffers(count, size):
    return Buffers(*(bytearray([number % 256]) * size for number in range(count)))


def make_bytes(kind, size):
    if kind == "str":
        return "ä" * size
    if kind == "array":
        return array.array("d", bytes(size // 8 * 8))
    return {"bytes": bytes, "bytearray": bytearray}[kind](size)


def same(value):
    return value


def fail_with(value):
    raise ValueError(value)


def die_with(_value):
    os.kill(os.getpid(), signal.SIGKILL)


def add_one(value):
    value += 1
    return value


def add_one_silently(value):
    value += 1
    return float(value.sum())


def total(value):
    return float(value.sum())


def sums(first, more, named):
    return float(first.sum()), float(more[0].sum()), len(more[1]), float(named.sum())


def nothing(_value):
    """Look at nothing."""


def twice(value):
    return value * 2


def tail(value):
    return value[len(value) // 4 :]


def little(value):
    return value[:40_000]


def both(value):
    return value, value[1:]


def pair(value):
    return [value, value]


def keep(value):
    kept.append(value)
    return value


def keep_quietly(value):
    kept.append(value)


def kept_total():
    return float(kept[-1].sum())


def drop():
    kept.clear()
    gc.collect()


def flags(value):
    return (
        value.flags.c_contiguous,
        value.flags.f_contiguous,
        value.flags.writeable,
        value.dtype.str,
        value.shape,
    )


def wait_with(value, address):
    arrive(address, "waiting")
    return float(value.sum())


def crash_after_writing(value, path):
    """Overwrite the argument and die, at the first try only."""
    before = float(value.sum())
    value[:] = -1
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return before


def raise_after_writing(value, path):
    before = float(value.sum())
    value[:] = -1
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        raise ValueError("the first try")
    return before


class BadToLoad:
    """Unpickling raises, after its buffer has arrived."""

    def __init__(self, part):
        self.part = part

    def __reduce_ex__(self, protocol):
        return refuse, (pickle.PickleBuffer(self.part),)


def refuse(part):
    raise ValueError("not to be unpickled")


def make_bad(size):
    return BadToLoad(bytearray(size))


def fork_and_write(value):
    """Write in a forked child and in its parent.

    Return whether each saw only its own, and the array.
    """
    before = float(value[0])
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            value += 100
            time.sleep(0.1)  # the parent writes, ends its task and gives the block away meanwhile
            os.write(
                write,
                b"y"
                if float(value[0]) == before + 100 and float(value[-1]) == float(value[0])
                else b"n",
            )
            del value
            gc.collect()
        finally:
            os._exit(0)
    os.close(write)
    value += 1
    kept.append((read, pid))
    return value


def fork_on_threads(value, count):
    """Fork on two threads at the same time.

    Return how many children ended well, and the number of new descriptors.
    """
    before, ended, barrier = len(os.listdir("/proc/self/fd")), [], threading.Barrier(2)

    def fork():
        barrier.wait()
        for _ in range(count):
            pid = os.fork()
            if not pid:
                os._exit(0 if float(value[-1]) == float(value[0]) else 1)
            ended.append(os.waitpid(pid, 0)[1] == 0)

    threads = [threading.Thread(target=fork) for _ in range(2)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # between the hooks of a fork too
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    return sum(ended), len(os.listdir("/proc/self/fd")) - before


def forked_child_saw():
    read, pid = kept.pop()
    said = os.read(read, 1)
    os.close(read)
    os.waitpid(pid, 0)
    return said


def resident(kind="arguments"):
    """Return the bytes of the worker's own file of results."""
    from _wetlands_worker import running

    return os.fstat(running.main_loop.shared[1]).st_blocks * 512


def send_false_blocks(which, size):
    """Send what is no result, with a list of blocks that cannot be true, as a broken worker would.
    """
    from _wetlands_worker import running, wire

    runner = running.main_loop
    slot, place, offset, capacity, start, length = {
        "slot": (1 << 20, wire.RESULTS, 1 << 26, 1 << 17, 0, 1 << 17),
        "not filled": (0, wire.RESULTS, 1 << 26, 1 << 17, 0, 1 << 17),
        "before the first": (0, wire.RESULTS, 0, 1 << 17, 0, 1 << 17),
        "behind the last": (0, wire.RESULTS, 1 << 50, 1 << 17, 0, 1 << 17),
        "longer than it is": (0, wire.RESULTS, 1 << 26, 1 << 17, 0, 1 << 18),
        "over the edge": (0, wire.RESULTS, (1 << 27) - (1 << 17), 1 << 18, 0, 1 << 18),
        "another worker's": (0, wire.ARGUMENTS, 0, 0, 0, 1 << 17),
        "no such argument": (9999, wire.ARGUMENTS, 0, 0, 0, 1 << 17),
        "place": (0, 7, 0, 0, 0, 1),
        "following": (0, wire.FOLLOWING, 0, 0, 0, 1 << 40),
    }[which]
    entry = wire.BLOCK.pack(slot, place, offset, capacity, start, length)
    runner.channel.send(wire.VALUE_IN_BLOCKS, runner.item, wire.LIST.pack(size, 0) + entry + b"N.")
    time.sleep(60)


def set_item(value, index, item):
    value[index] = item


def get_item(value, index):
    return value[index]


def close_descriptors():
    """Close what looks like descriptors of the pool, and open others."""
    from _wetlands_worker import running

    fds = running.main_loop.shared
    for fd in fds:
        os.close(fd)
    for fd in fds:
        other = os.open(os.devnull, os.O_RDWR)
        if other != fd:
            os.dup2(other, fd)


def forget_ctypes():
    """Be an interpreter that was built without ctypes."""
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]
    sys.modules["_ctypes"] = None


def bare_buffer(size):
    """Return memory that is nothing else."""
    import pickle

    return pickle.PickleBuffer(bytearray(b"x" * size))


def two(first, second):
    return first, second


def number_of(value):
    """Return the number in front of some zeros, and how many bytes that are."""
    assert not any(memoryview(value)[8:64])
    assert value.count(0) >= len(value) - 8
    return int.from_bytes(value[:8], "big"), len(value)


def mark_or_die(value, mark, crashing):
    with open(mark, "a", encoding="ascii") as file:
        file.write("x")
    number = number_of(value)[0]
    if number == crashing:
        os._exit(3)
    return number


def wait_at(value, address, place):
    """Wait for the test in the call of this number, and in those behind it."""
    number = int.from_bytes(value[:8], "big")
    if number >= place:
        arrive(address, "waiting")
    return number
