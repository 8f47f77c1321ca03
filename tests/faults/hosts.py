"""Programs that tests run as hosts of their own (``Host`` in ``conftest.py``).

``python -m tests.faults.hosts NAME ARGS``.
"""

from __future__ import annotations

import _signal
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import CancelledError, as_completed, wait

from tests.contract.workload import arrive
from tests.faults import work
from tests.faults.nesting import pass_data_for_ever, wait_for_child
from tests.support.observe import DEADLINE, pids
from tests.support.programs import fork, run, say
from tests.support.rendezvous import Rendezvous
from tests.support.sharing import CondaEnvExecutor
from wetlands_executor import WorkerCrashed

# ------------------------------------------------------------------------------------ its own death


def pickle_and_die(stage, kind):
    """Die while pickling a task, or while unpickling a result."""
    executor = CondaEnvExecutor(max_workers=2).launch()
    say(*pids(executor))
    if stage == "task_pickle":
        executor.submit(work.ignore, work.FaultWhenPickled(kind))
    else:
        executor.submit(work.make, work.FaultWhenUnpickled, kind).result(DEADLINE)


def idle():
    executor = CondaEnvExecutor(max_workers=2).launch()
    say(*pids(executor))
    sys.stdin.readline()


def nested():
    """Have a task wait for one inside it; print the pids of the workers of both."""
    executor = CondaEnvExecutor(max_workers=1)
    rendezvous = Rendezvous()
    executor.submit(wait_for_child, executor, rendezvous.address)
    rendezvous.next()
    say(*pids(executor))
    sys.stdin.readline()


def nested_data(way):
    """Have a task pass large data to those inside it, or get it; print the pids of both workers."""
    executor = CondaEnvExecutor(max_workers=1)
    rendezvous = Rendezvous()
    executor.submit(pass_data_for_ever, executor, rendezvous.address, way)
    rendezvous.next().release()
    say(*pids(executor))
    sys.stdin.readline()


def busy(what):
    """Have two workers busy; print their pids, and those of their children."""
    real = sys.stdout
    if what == "output":
        sys.stdout = _Blocking()
    with Rendezvous() as rendezvous:
        executor = CondaEnvExecutor(max_workers=2)
        for _ in range(2):
            if what == "python":
                executor.submit(work.spin, rendezvous.address)
            elif what == "c":
                executor.submit(work.hold_gil, 60, rendezvous.address)
            elif what == "grandchildren":
                executor.submit(work.leave_stubborn_subprocess, rendezvous.address)
            elif what == "output":
                executor.submit(work.announce_and_flood, rendezvous.address)
        arrivals = [rendezvous.next() for _ in range(2)]
        print(
            *(arrival.pid for arrival in arrivals),
            *(arrival.label for arrival in arrivals if arrival.label),
            file=real,
            flush=True,
        )
        sys.stdin.readline()


class _Blocking:
    def write(self, text):
        threading.Event().wait()

    def flush(self):
        pass


def starting():
    """Have workers that are in the middle of their start: their initializer runs."""
    with Rendezvous() as rendezvous:
        executor = CondaEnvExecutor(
            max_workers=2, initializer=arrive, initargs=(rendezvous.address,)
        )
        executor.launch(wait=False)
        say(rendezvous.next().pid, rendezvous.next().pid)
        sys.stdin.readline()


def spawning():
    """Ask for workers and say so at once."""
    executor = CondaEnvExecutor(max_workers=4)
    executor.launch(wait=False)
    say("asked")
    sys.stdin.readline()


# -------------------------------------------------------------------------------------------- forks


def _in_child(function):
    """Run ``function`` in a forked child; return its exit code."""
    sys.stdout.flush()
    child = fork()
    if child == 0:
        signal.alarm(15)
        code = 70
        try:
            code = function() or 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _expect(kind, function):
    try:
        found = function()
    except kind as error:
        if "fork" in str(error):
            return
        raise
    raise AssertionError(f"returned {found!r}")


def forked_errors():
    """A child that uses the parent's executor gets clear errors; the parent notices nothing."""
    with Rendezvous() as rendezvous:
        executor = CondaEnvExecutor(max_workers=2).launch()
        before = pids(executor)
        finished = executor.submit(pow, 2, 3)
        assert finished.result(DEADLINE) == 8
        task = executor.submit(arrive, rendezvous.address, "running")
        arrival = rendezvous.next()
        for name, check in {
            "submit": lambda: _expect(RuntimeError, lambda: executor.submit(abs, 1)),
            "map": lambda: _expect(RuntimeError, lambda: list(executor.map(abs, [1]))),
            "launch": lambda: _expect(RuntimeError, executor.launch),
            "result": lambda: _expect(RuntimeError, task.result),
            "exception": lambda: _expect(RuntimeError, task.exception),
            "finished": lambda: finished.result(0) - 8,
            "cancel": lambda: int(bool(task.cancel())),
            "workers": lambda: len(executor.workers()) * 0,
            "shutdown": executor.shutdown,
            "shutdown_cancel": lambda: executor.shutdown(cancel_futures=True),
            "exit": lambda: executor.__exit__(None, None, None) and 1,
            "interrupt": lambda: (
                executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) and 1
            ),
            "kill": executor.kill_workers,
            "terminate": executor.terminate_workers,
        }.items():
            say(name, _in_child(check))
            assert pids(executor) == before, name
            assert not task.done(), name
        arrival.release()
        assert task.result(DEADLINE) == "running"
        assert {executor.submit(os.getpid).result(DEADLINE) for _ in range(4)} <= before
        executor.shutdown()
        say("parent well")


def forked_strangers():
    """A child's own files get the numbers of the descriptors that were closed for it.

    They are left alone.
    """
    executor = CondaEnvExecutor(max_workers=2).launch()
    holder = [executor]

    def child():
        files = [os.open(f"{sys.argv[2]}/{number}", os.O_RDWR | os.O_CREAT) for number in range(60)]
        holder[0].shutdown()
        with contextlib.suppress(RuntimeError):
            holder[0].submit(abs, 1)
        with contextlib.suppress(RuntimeError):
            holder[0].kill_workers()
        holder.clear()
        gc.collect()
        for number, file in enumerate(files):
            assert os.fstat(file).st_size == 0, f"file {number} was written to"
        return 0

    executor_ref = executor
    del executor
    say(_in_child(child))
    assert executor_ref.submit(abs, -1).result(DEADLINE) == 1
    executor_ref.shutdown()


def _count_new(before):
    """Return how many descriptors are new, and tell which."""
    new = [
        f"/proc/self/fd/{number}" for number in sorted(set(os.listdir("/proc/self/fd")) - before)
    ]
    # Sources, bytecode and folders are what another thread was just reading, for a worker's bundle
    # or an import of its own.
    new = [os.readlink(path) for path in new if os.path.lexists(path) and not os.path.isdir(path)]
    new = [path for path in new if not path.endswith((".py", ".pyc"))]
    if new:
        os.write(2, f"left: {new}\n".encode())
    return min(60, len(new))


def forked_descriptors():
    """However early the fork comes, the child keeps no descriptor of the pool."""
    worst = 0
    for turn in range(30):
        before = set(os.listdir("/proc/self/fd"))
        executor = CondaEnvExecutor(max_workers=3)
        executor.launch(wait=False)
        time.sleep(turn % 10 * 0.001)  # the moment of the fork is the point
        worst = max(worst, abs(_in_child(lambda before=before: _count_new(before))))
        executor.kill_workers()
        executor.shutdown()
    say(worst)


def fork_and_be_killed(when):
    """Fork a child that outlives this process, then wait for the end."""
    with Rendezvous() as rendezvous:
        executor = CondaEnvExecutor(max_workers=2)
        executor.launch(wait=when == "idle")
        if when == "busy":
            executor.submit(work.hold_gil, 60, rendezvous.address)
            executor.submit(work.spin, rendezvous.address)
            rendezvous.next(), rendezvous.next()
        child = fork()
        if child == 0:
            os.close(1), os.close(0)
            time.sleep(60)
            os._exit(0)
        if when == "starting":
            executor.launch()
        say(child, *pids(executor))
        sys.stdin.readline()


# --------------------------------------------------------------------------------------- interrupts


class Interrupted(Exception):
    pass


def _interrupt(_number, frame):
    """Raise into whatever runs, but not into the few lines that count the interrupts.

    Nor into this function: on a busy machine the next interrupt may come while it runs above those
    lines, and would leave them.
    """
    if frame.f_code not in (_storm.__code__, _interrupt.__code__):
        raise _interrupts_with[0]


_interrupts_with = [Interrupted]


class _Critical(logging.Handler):
    """Says what the library logs as a bug of its own."""

    def emit(self, record):
        if record.levelno >= logging.ERROR and not _is_interrupt_in_callback(record):
            say("LOGGED", record.getMessage().splitlines()[0])


def _is_interrupt_in_callback(record):
    """Return True if an exception of ours hit a callback, of which it is logged by contract.

    A callback that is added to a task which has finished runs in the thread that adds it.
    """
    error = record.exc_info[1] if record.exc_info else None
    return record.msg.startswith("exception calling callback") and isinstance(error, Interrupted)


def _storm(calls, counts):
    """Make calls while an exception hits this thread every millisecond.

    The only function that is not hit itself.
    """
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while counts["calls"] < counts["wanted"] and counts["timeouts"] == 0:
            counts["calls"] += 1
            try:
                calls(counts["calls"])
            except Interrupted:
                counts["interrupted"] += 1
            except RuntimeError as error:
                if "lock" not in str(error):
                    raise
                # the standard library's Condition, interrupted between acquiring and entering
                counts["interrupted"] += 1
            except TimeoutError:
                counts["timeouts"] += 1
    finally:  # what is raised here is to be printed without interrupts
        signal.setitimer(signal.ITIMER_REAL, 0)
        # The function of C: within the one of the module `signal`, which is Python, the last
        # interrupt could still come, and would leave this function.
        _signal.signal(_signal.SIGALRM, _signal.SIG_IGN)


def interrupted_every_millisecond(count):
    """Submit, wait, cancel, map while an exception hits the main thread every millisecond."""
    logging.getLogger().addHandler(_Critical())
    executor = CondaEnvExecutor(max_workers=2).launch()
    tasks = []

    def calls(number):
        way = number % 8
        task = executor.submit(abs, -number)
        tasks.append(task)
        if way < 4:
            assert task.result(10) == number
        elif way == 4:
            assert task.cancel() in (True, False)
        elif way == 5:
            assert not wait([task], timeout=10).not_done
        elif way == 6:
            assert list(as_completed([task], timeout=10)) == [task]
        elif number % 64 == 7:
            assert list(executor.map(abs, range(-20, 0), timeout=10)) == list(range(20, 0, -1))

    counts = {"wanted": int(count), "calls": 0, "interrupted": 0, "timeouts": 0}
    _storm(calls, counts)
    lost = [task for task in tasks if not _finished(task)]
    say(
        "calls",
        counts["calls"],
        "interrupted",
        counts["interrupted"],
        "timeouts",
        counts["timeouts"],
        "lost",
        len(lost),
    )
    for _ in range(200):
        assert executor.submit(abs, -5).result(10) == 5
    assert list(executor.map(abs, range(-200, 0))) == list(range(200, 0, -1))
    executor.shutdown()
    say("well")


class InterruptedValue(Interrupted, ValueError):
    pass


class InterruptedIndex(Interrupted, IndexError):
    pass


class InterruptedTimeout(Interrupted, TimeoutError):
    pass


class InterruptedKeyboard(Interrupted, KeyboardInterrupt):
    pass


KINDS = {
    "interrupted": Interrupted,
    "value": InterruptedValue,
    "index": InterruptedIndex,
    "timeout": InterruptedTimeout,
    "interrupt": InterruptedKeyboard,
}


def interrupted_in_result(count, kind):
    """Wait for one call after the other while an exception of some kind hits the main thread every
    millisecond: each call keeps its result.
    """
    logging.getLogger().addHandler(_Critical())
    executor = CondaEnvExecutor(max_workers=1).launch()
    for _ in range(3):
        assert executor.submit(abs, -1).result(DEADLINE) == 1
    pending, seen = [None], []

    def calls(_number):
        # One that was submitted and then interrupted is waited for again: it must still come to its
        # end.
        while counts["done"] < int(count):
            if pending[0] is None:
                pending[0] = executor.submit(abs, -counts["done"])
            task, way = pending[0], counts["done"] % 16
            if way == 3:
                found = task.result(DEADLINE)
            elif way == 7:
                found = task.result() if task.done() else task.result()
            elif way == 11:
                task.add_done_callback(seen.append)
                found = task.result()
            else:
                found = task.result()
            if found != counts["done"]:
                counts["wrong"] += 1
            pending[0] = None
            counts["done"] += 1
        counts["wanted"] = 0

    counts = {"wanted": 10**9, "calls": 0, "interrupted": 0, "timeouts": 0, "done": 0, "wrong": 0}
    _interrupts_with[0] = KINDS[kind]
    _storm(calls, counts)
    say("interrupted", counts["interrupted"])
    assert executor.wait_all(DEADLINE)
    progress = executor.get_progress()
    say("done", counts["done"], "wrong", counts["wrong"], "timeouts", counts["timeouts"])
    say("running", progress["running"], "queued", progress["queued"], "failed", progress["failed"])
    assert [executor.submit(abs, -n).result(DEADLINE) for n in range(100)] == list(range(100))
    executor.shutdown()
    say("well")


def _finished(task):
    try:
        task.exception(10)
    except TimeoutError:
        return False
    except CancelledError:
        pass
    return True


def interrupted_in_shutdown():
    """Hundreds of exceptions out of shutdown(wait=True).

    The next one waits all the same, and ends.
    """
    logging.getLogger().addHandler(_Critical())
    with Rendezvous() as rendezvous:
        executor = CondaEnvExecutor(max_workers=1)
        task = executor.submit(arrive, rendezvous.address)
        queued = executor.submit(pow, 2, 3)
        arrival = rendezvous.next()
        counts = {"wanted": 600, "calls": 0, "interrupted": 0, "timeouts": 0}
        _storm(lambda _number: executor.shutdown(), counts)
        assert not task.done(), "a shutdown that returns has waited"
        say(counts["interrupted"])
        threading.Timer(0.1, arrival.release).start()
        executor.shutdown()
        say(task.done(), queued.done() and queued.result(), executor.worker_count)


def finalizers():
    """Threads, and objects whose finalizers call the executor from whatever thread the garbage
    collector runs on.
    """
    logging.getLogger().addHandler(_Critical())
    executor = CondaEnvExecutor(max_workers=2).launch()
    late = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            task = executor.submit(abs, -1)
            if len(late) % 3 == 0:
                task.cancel()
            executor.workers()
            late.append(task)

    gc.set_threshold(50, 2, 2)

    def run():
        for number in range(500):
            Cycle()
            task = executor.submit(abs, -number)
            if number % 5 == 0:
                task.cancel()
            elif number % 3 == 0:
                assert task.result(DEADLINE) == number

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    gc.set_threshold(700, 10, 10)
    not_done = wait(list(late), timeout=DEADLINE).not_done
    say(len(late) >= 2000, len(not_done))
    executor.shutdown()


def abandoned_by_collector():
    """Executors that the garbage collector finds, again and again, on whatever thread."""

    class Ring:
        def __init__(self):
            self.me = self
            self.executor = CondaEnvExecutor(max_workers=1)
            self.task = self.executor.submit(abs, -1)

    tasks = []
    for _ in range(12):
        ring = Ring()
        tasks.append(ring.task)
        del ring
        gc.collect()
    say(sum(task.result(DEADLINE) for task in tasks))


def interrupted_with(kind):
    """Ctrl-C inside ``with``.

    What is queued is cancelled, what runs is asked to stop, then interrupted.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Rendezvous() as rendezvous:
        queued = []
        try:
            with CondaEnvExecutor(max_workers=1) as executor:
                task = executor.submit(
                    patient if kind == "patient" else work.sleep_until_interrupted,
                    rendezvous.address,
                )
                queued = [executor.submit(pow, 2, 3) for _ in range(100)]
                say(rendezvous.next().pid)
                if kind == "leaving":
                    pass  # the signal comes while __exit__ waits
                else:
                    task.result()
        except KeyboardInterrupt:
            say(
                "interrupted",
                task.done(),
                sum(each.cancelled() for each in queued),
                executor.worker_count,
            )
            say(repr(task.exception(0)) if task.exception(0) else task.result(0))


def patient(address):
    """Work until asked to stop."""
    from wetlands_executor import current_task

    work.announce(address)
    end = time.monotonic() + 60
    while not current_task().cancel_requested and time.monotonic() < end:
        time.sleep(0.005)
    return "asked"


# ------------------------------------------------------------------------------ memory, descriptors


def small_host():
    """Get a result that does not fit."""
    with CondaEnvExecutor(max_workers=1) as executor:
        before = executor.submit(os.getpid).result(DEADLINE)
        work.limit_memory(200_000_000)
        try:
            executor.submit(work.blob, 600_000_000).result(DEADLINE)
        except MemoryError as error:
            say(type(error).__name__)
        say(len(executor.submit(work.blob, 1_000_000).result(DEADLINE)))
        say("same" if executor.submit(os.getpid).result(DEADLINE) == before else "another")


def flooded():
    """Be printed at, with a standard output that blocks; memory stays bounded."""
    gate = threading.Event()
    real = sys.stdout

    class Stuck:
        lines = 0

        def write(self, text):
            gate.wait()
            self.lines += text.count("\n")

        def flush(self):
            pass

    sys.stdout = stuck = Stuck()
    count = 500_000
    with CondaEnvExecutor(max_workers=1) as executor:
        executor.submit(os.getpid).result(DEADLINE)
        before = _memory()
        task = executor.submit(work.flood, count, 90)
        most = 0
        for _ in range(20):
            time.sleep(0.05)  # time for it to do its worst
            most = max(most, _memory() - before)
        stopped = not task.done()
        gate.set()
        result = task.result(60)
        lines = stuck.lines
    sys.stdout = real
    say(stopped, result == count, lines, most // 1_000_000)


def _memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def no_descriptors(folder):
    """Submit with 0, 1, 2, ... descriptors left, each time with a new executor.

    Say what happened, and recover.
    """
    logging.getLogger().addHandler(_Critical())
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
    for free in range(29):
        before = set(os.listdir("/proc/self/fd"))
        journal = f"{folder}/{free}"
        executor = CondaEnvExecutor(max_workers=1)
        kind = _submit_with(free, executor, journal)
        assert executor.submit(work.journal, journal, 2).result(DEADLINE) == 2
        executor.shutdown()
        with open(journal) as file:
            ran = file.read().split()
        left = [f"/proc/self/fd/{number}" for number in set(os.listdir("/proc/self/fd")) - before]
        say(free, kind, *ran, *(os.readlink(path) for path in left if os.path.lexists(path)))


def _submit_with(free, executor, journal):
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for _ in range(free):
        os.close(held.pop())
    try:
        task = executor.submit(work.journal, journal, 1)
        return type(task.exception(DEADLINE)).__name__
    except OSError:
        return "raised"
    finally:
        for fd in held:
            os.close(fd)


def no_descriptors_when_a_worker_dies():
    """A worker dies while there are no descriptors for another one.

    Those who wait get an error or the replacement, later ones run.
    """
    executor = CondaEnvExecutor(max_workers=1)
    pid = executor.submit(os.getpid).result(DEADLINE)
    soft = len(os.listdir("/proc/self/fd")) + 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 1000))
    os.kill(pid, signal.SIGKILL)
    tasks = [executor.submit(pow, 2, 3) for _ in range(10)]
    kinds = {type(task.exception(DEADLINE)).__name__ for task in tasks}
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
    say(
        kinds <= {"WorkerStartError", "NoneType", "WorkerCrashed"},
        executor.submit(pow, 2, 4).result(DEADLINE),
    )
    executor.shutdown()


def children_ignored(how):
    """A host that ignores SIGCHLD, or reaps whatever it finds, steals exit codes but nothing else.
    """
    if how == "ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:

        def reap(_number, _frame):
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass

        signal.signal(signal.SIGCHLD, reap)
    with CondaEnvExecutor(max_workers=2) as executor:
        for _ in range(5):
            try:
                executor.submit(os._exit, 3).result(DEADLINE)
            except WorkerCrashed:
                say("crashed")
            assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    say("well")


def smoke():
    """A little of everything, for the other I/O worlds."""
    with Rendezvous() as rendezvous, CondaEnvExecutor(max_workers=2) as executor:
        for kind in ("os_exit", "segfault"):
            tasks = [executor.submit(pow, 2, n) for n in range(100)]
            culprit = executor.submit(work.fault, kind)
            tasks += [executor.submit(pow, 2, n) for n in range(100)]
            assert isinstance(culprit.exception(DEADLINE), WorkerCrashed)
            assert [task.result(DEADLINE) for task in tasks] == [2**n for n in range(100)] * 2
        for cls in (work.FaultWhenPickled, work.FaultWhenUnpickled):
            assert isinstance(
                executor.submit(work.make, cls, "raise").exception(DEADLINE), ZeroDivisionError
            )
        assert len(executor.submit(work.blob, 30_000_000).result(DEADLINE)) == 30_000_000
        assert isinstance(
            executor.submit(work.blob_and_die, 100_000_000).exception(DEADLINE), WorkerCrashed
        )
        running = [executor.submit(arrive, rendezvous.address, n) for n in range(2)]
        arrivals = rendezvous.expect(0, 1)
        waiting = [executor.submit(pow, 2, n) for n in range(20)]
        assert waiting[-1].cancel()
        os.kill(arrivals["0"].pid, signal.SIGKILL)
        assert isinstance(running[0].exception(DEADLINE), WorkerCrashed)
        assert [task.result(DEADLINE) for task in waiting[:-1]] == [2**n for n in range(19)]
        arrivals["1"].release()
        assert running[1].result(DEADLINE) == 1
        assert executor.submit(work.flood, 3000).result(DEADLINE) == 3000
        executor.submit(work.leave_subprocess).result(DEADLINE)
    say("well")


# --------------------------------------------------------------------------------- a shared preload


def _fork_server(executor):
    while (process := executor._pool.settings.fork_server._process) is None:
        time.sleep(0.001)  # it is being started by another thread
    return process.pid


def shared(what):
    """Have a fork server and two workers, and say who they are."""
    if what == "preload":
        os.environ["PYTHONPATH"] = ""
        folder = tempfile.mkdtemp(prefix="wlt-host")
        with open(f"{folder}/sleepy.py", "w") as file:
            file.write("import ctypes\nctypes.PyDLL(None).sleep(60)\n")
        sys.path.insert(0, folder)
        executor = CondaEnvExecutor(max_workers=2, preload=["sleepy"], share_preload=True)
        executor.launch(wait=False)
        say(_fork_server(executor))
        sys.stdin.readline()
    with Rendezvous() as rendezvous:
        executor = CondaEnvExecutor(max_workers=2, preload=["json"], share_preload=True).launch()
        arrivals = []
        if what != "idle":
            for _ in range(2):
                if what == "c":
                    executor.submit(work.hold_gil, 60, rendezvous.address)
                else:
                    executor.submit(work.leave_stubborn_subprocess, rendezvous.address)
            arrivals = [rendezvous.next() for _ in range(2)]
        say(
            _fork_server(executor),
            *pids(executor),
            *(arrival.label for arrival in arrivals if arrival.label),
        )
        sys.stdin.readline()


def shared_spawning():
    executor = CondaEnvExecutor(max_workers=8, preload=["json"], share_preload=True)
    executor.launch(wait=False)
    say(_fork_server(executor))
    sys.stdin.readline()


def shared_forked():
    """Fork at many moments of a start; the child keeps nothing."""
    worst = 0
    for turn in range(20):
        before = set(os.listdir("/proc/self/fd"))
        executor = CondaEnvExecutor(max_workers=4, preload=["json"], share_preload=True)
        executor.launch(wait=False)
        time.sleep(turn * 0.008)  # the moment of the fork is the point
        worst = max(worst, abs(_in_child(lambda before=before: _count_new(before))))
        assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
        executor.shutdown()
    say(worst)
    say("well")


def shared_elsewhere():
    """Where there is nothing to fork workers with, a warning says so and they start separately."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        executor = CondaEnvExecutor(max_workers=1, preload=["json"], share_preload=True)
    say(len(caught), "Linux" in str(caught[0].message))
    with executor:
        say(executor.submit(pow, 2, 3).result(DEADLINE))


if __name__ == "__main__":
    run(globals())
