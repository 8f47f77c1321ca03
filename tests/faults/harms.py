"""What tasks do to the descriptors of their process, by accident.

Only that task, or its worker, may be harmed.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import threading
import time

from tests.contract.workload import arrive

#: Seconds that what the host has for this worker may take to arrive.
ARRIVAL = 10
WAKEUP = "eventfd"
FILES = "/memfd:wetlands"


def descriptors():
    """Return number -> what it is, of all that are open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass  # the folder itself
    return found


def _for_each(act, what="", first=0):
    done = 0
    for fd, name in descriptors().items():
        if what in name and fd >= first:
            try:
                act(fd)
            except (OSError, ValueError):
                continue
            done += 1
    return done


def set_nonblocking():
    """Make every descriptor non-blocking, as a command does with its standard streams."""
    return _for_each(lambda fd: os.set_blocking(fd, False))


def fill_counters():
    """Fill every eventfd, so that the next write to it blocks."""
    return _for_each(lambda fd: os.write(fd, (2**64 - 2).to_bytes(8, "little")), WAKEUP)


def fill_and_set_nonblocking():
    """Both."""
    return set_nonblocking() and fill_counters()


def drain_counters():
    """Take the rings that are there."""
    set_nonblocking()
    return _for_each(lambda fd: os.read(fd, 8), WAKEUP)


def change_flags():
    """Set each flag of an open file that there is, and the smallest pipes."""
    done = 0
    for flags in (os.O_APPEND, os.O_DIRECT, os.O_NONBLOCK | os.O_DIRECT | os.O_ASYNC):
        done += _for_each(lambda fd, flags=flags: fcntl.fcntl(fd, fcntl.F_SETFL, flags), first=3)
    _for_each(lambda fd: fcntl.fcntl(fd, 1031, 4096))  # F_SETPIPE_SZ
    return done


def print_packets(count):
    """Set the flag by which each write to the standard output is a packet; print some lines."""
    fcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)
    for number in range(count):
        os.write(1, b"%d\n" % number)
    return count


def close_all():
    """As a daemon does it."""
    os.closerange(3, 4096)


def cover_all():
    """Put the null device in the place of every descriptor."""
    null = os.open(os.devnull, os.O_RDWR)
    _for_each(lambda fd: os.dup2(null, fd), first=3)


def fork_a_daemon():
    """Leave a child that closes everything."""
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 4096)
        os._exit(0)


def write_zeros():
    """Write zeros to every file in memory, in each way that there is; return what took them."""
    found = []
    zeros = bytes(1 << 16)

    def attempt(fd, act):
        try:
            act(fd)
        except OSError:
            return
        found.append((act.__name__, descriptors()[fd]))

    def write(fd):
        os.write(fd, zeros)

    def write_at_the_start(fd):
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, zeros)

    def pwrite(fd):
        os.pwrite(fd, zeros, 0)

    def truncate(fd):
        os.ftruncate(fd, 4096)

    def sendfile(fd):
        with open("/dev/zero", "rb") as source:
            os.lseek(fd, 0, os.SEEK_SET)
            os.sendfile(fd, source.fileno(), None, len(zeros))

    def splice(fd):
        read, end = os.pipe()
        os.write(end, zeros[:4096])
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            os.splice(read, fd, 4096)
        finally:
            os.close(read)
            os.close(end)

    acts = [write, write_at_the_start, pwrite, truncate, sendfile]
    if hasattr(os, "splice"):
        acts.append(splice)
    for fd, name in descriptors().items():
        if FILES in name:
            for act in acts:
                attempt(fd, act)
    return found


def hold_and_sum(array, address):
    """Wait with an array; return its sum after that."""
    arrive(address)
    return float(sum(array[:: len(array) // 7]))


# ---------------------------------------------------------------- what belongs to the worker alone


def own_descriptors():
    """Return name -> number of the descriptors that belong to this worker."""
    runner = sys.modules["_wetlands_worker.running"].main_loop
    channel = runner.channel
    return {
        "inbox": channel.inbox,
        "bulk": channel.bulk,
        "results": channel.results,
        "life": runner.life,
        "wakeup": runner.answers.wakeup,
        "arguments": runner.shared[0],
        "file": runner.shared[1],
    }


def read_own(name, count, address=None):
    """Read once from a descriptor of the worker, after the test has said so."""
    if address is not None:
        arrive(address)
    fd = own_descriptors()[name]
    # The host may count a call as this worker's before it has written it.
    if select.select([fd], [], [], ARRIVAL)[0]:
        return len(os.read(fd, count))
    return 0


def leave_reader(name, count, address=None):
    """Leave a thread behind that reads whatever comes, from when the test says so."""
    fd = own_descriptors()[name]

    def read():
        if address is not None:
            arrive(address)
        try:
            while os.read(fd, count):
                pass
        except OSError:
            pass  # closed: the worker ends

    thread = threading.Thread(target=read)
    thread.daemon = True
    thread.start()


def leave_one_reading(name, count):
    """Leave a thread behind that reads once, and is waiting to do so when this task ends."""
    fd = own_descriptors()[name]
    thread = threading.Thread(target=os.read, args=(fd, count))
    thread.daemon = True
    thread.start()
    with open(f"/proc/self/task/{thread.native_id}/wchan") as file:
        while (
            "read" not in file.read()
        ):  # nothing announces that a thread has begun to wait in the kernel
            file.seek(0)
            time.sleep(0.001)


def read_everything(count, address=None):
    """Read from each descriptor that has something to read; return how many that were."""
    if address is not None:
        arrive(address)
    done = 0
    for fd in descriptors():
        if fd > 2:
            try:
                if select.select([fd], [], [], 0)[0]:
                    os.read(fd, count)
                    done += 1
            except OSError:
                continue  # it cannot be read
    return done


def close_own(name):
    try:
        os.close(own_descriptors()[name])
    except OSError:
        pass  # an earlier task has closed it


def cover_own(name):
    """Put the null device in its place."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, own_descriptors()[name])
    os.close(null)


def spoil_own(name):
    """Write what no worker writes."""
    try:
        os.write(own_descriptors()[name], b"\1\0\0\0\0\0\0\0" * 16)
    except OSError:
        pass  # the reading end of a pipe, or a file that takes no writes
