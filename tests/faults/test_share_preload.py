"""Workers that one process of the environment forks (``share_preload``).

As good as workers of their own, whichever process dies.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from tests.contract.workload import arrive
from tests.faults import work
from tests.support.observe import (
    DEADLINE,
    ORPHAN_LIMIT,
    crash_of,
    gone,
    lines,
    pids,
    start_error,
    until,
)
from wetlands_executor import (
    CondaEnvExecutor,
    TaskTimeoutError,
    WorkerCrashed,
    WorkerStartError,
    children,
)
from wetlands_executor.pool import reaper
from wetlands_executor.serialize.settings import current_settings


@pytest.fixture
def shared(make):
    """Make executors that share a preload."""
    return lambda max_workers=2, preload=("json",), **kwargs: make(
        max_workers, preload=preload, share_preload=True, **kwargs
    )


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of the host's project; the workers find it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def fork_server_of(executor: CondaEnvExecutor) -> int:
    """Return the pid of the process that forks the workers."""
    process = executor._pool.settings.fork_server._process
    assert process is not None
    return process.pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def parent_of_me() -> int:
    return os.getppid()


def level_of(name: str) -> int:
    return logging.getLogger(name).level


# ----------------------------------------------------------------------------------- what is shared


def test_imported_once_for_all(shared, module, tmp_path):
    journal = tmp_path / "journal"
    name = module(
        "counted", f"import os\nopen({str(journal)!r}, 'a').write('%d\\n' % os.getpid())\n"
    )
    executor = shared(4, [name]).launch()
    assert lines(journal) == [str(fork_server_of(executor))]
    assert {parent_of(pid) for pid in pids(executor)} == {fork_server_of(executor)}
    assert executor.submit(eval, "'counted' in __import__('sys').modules").result(DEADLINE)
    assert len(pids(executor)) == 4


def test_every_python(shared, rendezvous, anypython):
    """From 3.8 on: calls, errors, a crash and its replacement, the end."""
    executor = shared(
        2,
        ["json", "decimal", "logging", "multiprocessing.util", "concurrent.futures.thread"],
        env=str(anypython.path),
    ).launch()
    assert executor.submit("platform:python_version").result(DEADLINE).startswith(anypython.minor)
    assert executor.submit("os:getppid").result(DEADLINE) == fork_server_of(executor)
    assert isinstance(executor.submit(work.fault, "raise").exception(DEADLINE), ZeroDivisionError)
    running = [executor.submit(arrive, rendezvous.address, number) for number in range(2)]
    arrivals = rendezvous.expect(0, 1)
    os.kill(arrivals["0"].pid, signal.SIGSEGV)
    crash = crash_of(running[0])
    assert (crash.exit_code, crash.signal_name) == (-signal.SIGSEGV, "SIGSEGV")
    arrivals["1"].release()
    assert running[1].result(DEADLINE) == 1
    assert crash_of(executor.submit(os._exit, 7)).exit_code == 7
    assert list(executor.map(pow, [2] * 50, range(50))) == [2**number for number in range(50)]


def test_a_worker_has_a_session_and_descriptors_of_its_own(shared, make):
    def describe():
        kinds = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink("/proc/self/fd/" + number).split(":")[0]
            except OSError:
                continue  # the listing itself
            kinds[target] = kinds.get(target, 0) + 1
        return (
            os.getpid() == os.getsid(0) == os.getpgrp(),
            kinds,
            os.getcwd(),
            sorted(os.environ.items()),
            os.get_blocking(0),
        )

    own = make(1, preload=["json"]).submit(describe).result(DEADLINE)
    executor = shared(3).launch()
    tasks = [executor.submit(describe) for _ in range(12)]
    for task in tasks:
        assert task.result(DEADLINE) == own


def test_variables(shared, module):
    """Those of a worker are its own, those that all share are there when the preload is imported,
    and libraries get one thread then.
    """
    name = module("looks", "import os\nseen = dict(os.environ)\n")

    def variables(index):
        return {"OWN": str(index), "SAME": "yes", **({"FIRST": "1"} if index == 0 else {})}

    executor = shared(3, [name], worker_env=variables).launch()
    for info in executor.workers():
        assert info.state == "idle"
    seen = {}
    for task in [executor.submit(work.environment, 0.2) for _ in range(3)]:
        pid, environment = task.result(DEADLINE)
        seen[pid] = environment
    assert sorted(environment["OWN"] for environment in seen.values()) == ["0", "1", "2"]
    assert [
        environment.get("FIRST") for environment in seen.values() if environment["OWN"] != "0"
    ] == [None, None]
    assert all(
        "OMP_NUM_THREADS" not in environment or "OMP_NUM_THREADS" in os.environ
        for environment in seen.values()
    )
    at_import = executor.submit(eval, "__import__('looks').seen").result(DEADLINE)
    assert (at_import["SAME"], at_import["OMP_NUM_THREADS"], at_import["OPENBLAS_NUM_THREADS"]) == (
        "yes",
        "1",
        "1",
    )
    assert "OWN" not in at_import
    executor = shared(1, [name], worker_env={"OMP_NUM_THREADS": "3"})
    at_import = executor.submit(eval, "__import__('looks').seen").result(DEADLINE)
    assert (at_import["OMP_NUM_THREADS"], at_import["OPENBLAS_NUM_THREADS"]) == ("3", "1")
    assert executor.submit(os.getenv, "OMP_NUM_THREADS").result(DEADLINE) == "3"


def test_folder(shared, tmp_path, monkeypatch):
    executor = shared(1, cwd=tmp_path, max_tasks_per_child=1)
    assert {executor.submit(os.getcwd).result(DEADLINE) for _ in range(3)} == {
        str(tmp_path.resolve())
    }
    wandering = shared(1, max_tasks_per_child=1)
    wandering.submit(os.getcwd).result(DEADLINE)
    monkeypatch.chdir(tmp_path)
    assert until(lambda: wandering.submit(os.getcwd).result(DEADLINE) == str(tmp_path.resolve())), (
        "the host's folder when a worker starts"
    )


def test_folder_that_is_gone(shared, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    executor = shared(1, cwd=folder, max_tasks_per_child=1)
    executor.submit(pow, 2, 3).result(DEADLINE)
    folder.rmdir()
    assert "here" in str(start_error(executor.submit(pow, 2, 3)))


def test_random_numbers_differ(shared):
    pytest.importorskip("numpy")
    executor = shared(4, ["random", "numpy", "numpy.random"], max_tasks_per_child=1)
    tasks = [executor.submit(work.draw) for _ in range(12)]
    found = [task.result(DEADLINE) for task in tasks]
    for column in zip(*found, strict=True):
        assert len(set(column)) == 12


def test_what_a_preload_prints_and_logs_comes_once(shared, module, capsys, caplog):
    name = module(
        "talks",
        "import logging, sys\nprint('imported')\nprint('to stderr', "
        "file=sys.stderr)\nlogging.getLogger('talks').warning('logged %d', 7)\n",
    )
    executor = shared(3, [name]).launch()
    for task in [executor.submit(work.log_and_print, number) for number in range(6)]:
        task.result(DEADLINE)
    executor.shutdown()
    out, err = capsys.readouterr()
    assert out.count("imported\n") == 1
    assert err.count("to stderr\n") == 1
    assert sorted(line for line in out.splitlines() if line.startswith("printed")) == [
        f"printed {number}" for number in range(6)
    ]
    records = [record for record in caplog.records if record.name == "talks"]
    assert [record.getMessage() for record in records] == ["logged 7"]
    records = [record for record in caplog.records if record.name == "work"]
    assert sorted(record.getMessage() for record in records) == [
        f"logged {number}" for number in range(6)
    ]
    assert all(record.task_name and record.worker_index in (0, 1, 2) for record in records)


def test_exit_hooks_of_the_preload_run_once(shared, module, tmp_path):
    """They belong to the process that imported it; what a task registers runs in its worker."""
    journal = tmp_path / "journal"
    name = module(
        "hooked",
        "import atexit, os, tempfile, weakref\n"
        f"def note(what): open({str(journal)!r}, 'a').write('%s %d\\n' % (what, os.getpid()))\n"
        "atexit.register(note, 'hook')\nclass Thing: pass\nthing = "
        "Thing()\nweakref.finalize(thing, note, 'finalizer')\n"
        "folder = tempfile.TemporaryDirectory(prefix='wl-hooked')\n",
    )
    executor = shared(2, [name]).launch()
    parent = fork_server_of(executor)
    folder = executor.submit(eval, "__import__('hooked').folder.name").result(DEADLINE)
    worker = executor.submit(work.register_hooks, str(journal)).result(DEADLINE)
    executor.submit(os.kill, worker, 0).result(DEADLINE)
    assert os.path.isdir(folder)
    executor.shutdown()
    assert sorted(lines(journal)) == sorted(
        [f"hook {parent}", f"finalizer {parent}", f"task hook {worker}", f"task finalizer {worker}"]
    )
    assert not os.path.exists(folder)


def test_children_of_tasks(shared):
    """multiprocessing by fork and by spawn, and a bare fork, in a process that is itself a fork."""
    executor = shared(1, ["multiprocessing", "multiprocessing.util"])
    pid = executor.submit(os.getpid).result(DEADLINE)
    assert executor.submit(work.fork_and_return).result(DEADLINE) == ("parent", pid)
    for method in ("fork", "spawn", "forkserver"):
        assert executor.submit(work.use_multiprocessing, method).result(DEADLINE) == (
            "from below",
            0,
        )
    assert executor.submit(os.system, "exit 3").result(DEADLINE) == 3 << 8


# ----------------------------------------------------------------------------------------- who dies


def test_a_worker_after_the_other(shared):
    """Whatever ends a worker, its number is reaped, nothing is kept open, and the next one comes.
    """
    executor = shared(2, max_tasks_per_child=1)
    executor.submit(pow, 2, 3).result(DEADLINE)
    parent = fork_server_of(executor)
    fds = []
    for turn in range(40):
        if turn % 4 == 3:
            crash_of(executor.submit(work.fault, "os_exit"))
        else:
            assert executor.submit(pow, 2, turn).result(DEADLINE) == 2**turn
        fds.append(len(os.listdir(f"/proc/{parent}/fd")))
        assert fork_server_of(executor) == parent
    assert until(lambda: len(children_of(parent)) <= 2), "zombies stay"
    # Race: while it forks, it holds the descriptors of that worker too; looked at in that moment
    # they are not left over.
    assert until(lambda: len(os.listdir(f"/proc/{parent}/fd")) <= min(fds) + 2), (
        f"descriptors stay: {fds}"
    )


def test_fork_server_is_killed(shared, rendezvous):
    """What runs goes on; the next start makes a new one; how an orphan ends is unknown."""
    executor = shared(2).launch()
    running = [executor.submit(arrive, rendezvous.address, number) for number in range(2)]
    arrivals = rendezvous.expect(0, 1)
    first = fork_server_of(executor)
    os.kill(first, signal.SIGKILL)
    os.kill(arrivals["0"].pid, signal.SIGKILL)
    crash = crash_of(running[0])
    assert crash.exit_code is None
    arrivals["1"].release()
    assert running[1].result(DEADLINE) == 1
    assert executor.submit(os.getppid).result(DEADLINE) >= 0
    executor.launch()
    assert fork_server_of(executor) != first
    assert fork_server_of(executor) in {parent_of(pid) for pid in pids(executor)}
    assert crash_of(executor.submit(work.fault, "segfault")) is not None


def test_children_of_an_orphan_die_with_it(shared, rendezvous):
    executor = shared(1)
    task = executor.submit(work.leave_stubborn_subprocess, rendezvous.address)
    arrival = rendezvous.next()
    os.kill(fork_server_of(executor), signal.SIGKILL)
    os.kill(arrival.pid, signal.SIGKILL)
    crash_of(task)
    assert gone([int(arrival.label)])


def test_children_die_also_where_the_kernel_is_older(shared, rendezvous, monkeypatch):
    """Without signals to a group by pidfd the number serves, which the fork server keeps taken."""
    monkeypatch.setattr(children, "TO_GROUP", 1 << 30)
    executor = shared(1)
    task = executor.submit(work.leave_stubborn_subprocess, rendezvous.address)
    arrival = rendezvous.next()
    os.kill(arrival.pid, signal.SIGKILL)
    assert crash_of(task).signal_name == "SIGKILL"
    assert gone([int(arrival.label)])


def test_workers_and_fork_server_die_again_and_again(shared, tmp_path, stress_rng):
    executor = shared(2).launch()
    journal = tmp_path / "journal"
    tasks = {}
    killed = 0
    for turn in range(25):
        for number in range(turn * 40, turn * 40 + 40):
            tasks[number] = executor.submit(work.journal, str(journal), number)
        process = executor._pool.settings.fork_server._process
        # Three starts in a row that are killed would be a WorkerStartError.
        workers = executor.workers()
        victims = [info.pid for info in workers if info.pid and info.state in ("idle", "busy")]
        if process is not None and stress_rng.random() < 0.5:
            victims = [process.pid] + victims * (stress_rng.random() < 0.3)
        for victim in victims:
            time.sleep(stress_rng.uniform(0, 0.004))  # the moment of the kill is the point
            try:
                os.kill(victim, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
    _done, still_open = wait(tasks.values(), timeout=3 * DEADLINE)
    assert not still_open
    failed = {number for number, task in tasks.items() if task.exception() is not None}
    assert all(type(tasks[number].exception()) is WorkerCrashed for number in failed), {
        repr(tasks[n].exception()) for n in failed
    }
    assert len(failed) <= killed
    ran = lines(journal)
    assert len(ran) == len(set(ran)), "a task ran twice"
    assert set(map(str, set(tasks) - failed)) <= set(ran)


def test_fork_server_is_stopped(shared, rendezvous, monkeypatch):
    """A death is reported without it; shutdown does not wait for it for ever."""
    monkeypatch.setattr(reaper, "STATUS_GRACE", 0.2)
    executor = shared(2).launch()
    parent = fork_server_of(executor)
    task = executor.submit(arrive, rendezvous.address)
    arrival = rendezvous.next()
    os.kill(parent, signal.SIGSTOP)
    os.kill(arrival.pid, signal.SIGKILL)
    try:
        assert crash_of(task).exit_code is None
        assert executor.submit(pow, 2, 3).result(DEADLINE) == 8, "the other worker serves"
    finally:
        os.kill(parent, signal.SIGCONT)
    executor.launch()
    assert executor.worker_count == 2


@pytest.mark.parametrize("what", ["idle", "c", "grandchildren", "preload"])
def test_host_is_killed(host, what):
    """Guarantee 4, with the fork server: two seconds later no process is left."""
    program = host("shared", what)
    processes = set(map(int, program.line().split()))
    assert len(processes) == {"idle": 3, "c": 3, "grandchildren": 5, "preload": 1}[what]
    program.process.kill()
    assert gone(processes, ORPHAN_LIMIT)


def test_forked_host(host):
    """A child of the host keeps nothing of the pool, and harms no other process."""
    code, out, err = host("shared_forked").finish()
    assert (code, out.splitlines()) == (0, ["0", "well"]), err


def test_host_that_ends_in_the_middle_of_forks(host):
    for turn in range(6):
        program = host("shared_spawning")
        program.line()
        time.sleep(turn * 0.015)  # the moment of the kill is the point
        program.process.kill()
        program.close()


# ------------------------------------------------------------------------------------------ signals


def test_ctrl_c_reaches_only_a_running_call(shared, rendezvous):
    executor = shared(2, cancel_grace=0.05).launch()
    before = pids(executor)
    for pid in [*before, fork_server_of(executor)]:
        os.kill(pid, signal.SIGINT)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
    task = executor.submit(work.sleep_until_interrupted, rendezvous.address)
    arrival = rendezvous.next()
    task.cancel()
    assert until(task.done)
    assert pids(executor) == before
    assert arrival.pid in before


def test_hung_call_shows_its_stacks(shared):
    executor = shared(1, task_timeout=0.3)
    error = executor.submit(work.sleep_deep, 60).exception(DEADLINE)
    assert isinstance(error, TaskTimeoutError)
    assert "sleep_deep" in str(error)
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


# --------------------------------------------------------------------------------- starts that fail


def test_preload_that_fails(shared, module, tmp_path):
    journal = tmp_path / "journal"
    name = module(
        "trap", f"open({str(journal)!r}, 'a').write('x\\n')\nraise RuntimeError('the trap')\n"
    )
    executor = shared(8, ["json", name])
    with pytest.raises(WorkerStartError, match="the trap") as info:
        executor.launch()
    assert "trap" in str(info.value)
    assert isinstance(info.value.__cause__, RuntimeError)
    assert len(lines(journal)) == 1, "one try for all"
    assert "raise RuntimeError" in str(info.value.__cause__.__cause__), "the traceback"
    start_error(executor.submit(pow, 2, 3))
    module(name, "")
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


@pytest.mark.parametrize(
    "end",
    [
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "import os; os._exit(3)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_preload_that_ends_the_fork_server(shared, module, end):
    name = module(
        "end", f"import sys\nsys.stderr.write('about to end')\nsys.stderr.flush()\n{end}\n"
    )
    assert "about to end" in str(start_error(shared(2, [name]).submit(pow, 2, 3)))


def test_preload_that_hangs(shared, module, tmp_path):
    pid_file = tmp_path / "pid"
    name = module(
        "hang",
        f"import os, sys, time\nopen({str(pid_file)!r}, "
        f"'w').write(str(os.getpid()))\nprint('hanging', file=sys.stderr)\ntime.sleep(60)\n",
    )
    executor = shared(2, [name], start_timeout=1.0)
    error = start_error(executor.submit(pow, 2, 3))
    assert "start_timeout" in str(error)
    assert "hanging" in str(error)
    assert gone([int(pid_file.read_text())])
    module(name, "")
    assert executor.submit(pow, 2, 3).result(DEADLINE) == 8


@pytest.mark.parametrize("end", ["shutdown", "kill_workers", "terminate_workers"])
def test_end_during_the_preload(shared, module, tmp_path, end):
    here = tmp_path / "here"
    name = module("slow", f"import time\nopen({str(here)!r}, 'w')\ntime.sleep(60)\n")
    executor = shared(4, [name])
    task = executor.submit(pow, 2, 3)
    executor.launch(wait=False)
    assert until(here.exists)
    began = time.monotonic()
    if end == "shutdown":
        executor.shutdown(cancel_futures=True)
    else:
        getattr(executor, end)()
        executor.shutdown()
    assert time.monotonic() - began < 5
    assert task.cancelled()


def test_interrupted_fork_server_goes_on(shared):
    executor = shared().launch()
    # the warm-up has put that one's handler in its place for a while
    os.kill(fork_server_of(executor), signal.SIGINT)
    crash_of(executor.submit(os.kill, executor.submit(os.getpid).result(DEADLINE), signal.SIGKILL))
    assert executor.submit(parent_of_me).result(DEADLINE) == fork_server_of(executor)


def test_settings_that_fit_into_no_pipe(shared, monkeypatch, tmp_path):
    """A fork server warms up with pipes that no other process reads.

    It must not wait for a process that does.
    """
    folders = [tmp_path / ("folder" * 30 + str(number)) for number in range(400)]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, *map(str, folders)])
    assert len(current_settings().data) > 65536
    executor = shared()
    assert executor.submit(len, "12").result(DEADLINE) == 2
    assert executor.submit(parent_of_me).result(DEADLINE) == fork_server_of(executor)


@pytest.mark.parametrize("shares", [True, False])
def test_levels_that_the_preload_sets_stand(make, module, caplog, shares):
    name = module("quiet", "import logging\nlogging.getLogger('quiet.one').setLevel(17)\n")
    with caplog.at_level(logging.ERROR, logger="quiet.one"):
        executor = make(1, preload=[name], share_preload=shares)
        assert executor.submit(level_of, "quiet.one").result(DEADLINE) == 17


def test_not_a_python(shared, tmp_path):
    """Something that reads nothing, says a lot, and then ends."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\nhead -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo "
        "'the end' >&2; exit 2\n"
    )
    python.chmod(0o755)
    error = start_error(shared(1, env=str(python)).submit(pow, 2, 3))
    assert "the end" in str(error)
    assert "exit code 2" in str(error)
    assert len(str(error)) < 100_000


def test_threads_are_refused(shared, module):
    name = module(
        "threaded",
        "import threading, time\nthreading.Thread(target=time.sleep, "
        "args=(60,), name='ticker', daemon=True).start()\n",
    )
    module("brief", "import threading\nthreading.Thread(target=int).start()\n")
    error = start_error(shared(2, ["json", name]).submit(pow, 2, 3))
    assert "ticker" in str(error)
    assert "threaded" in str(error)
    assert shared(2, ["brief"]).submit(pow, 2, 3).result(DEADLINE) == 8, (
        "a thread that has ended is none"
    )


def test_native_threads_are_named(shared, module, caplog):
    """They may be harmless (a numerical library that knows about forks).

    The log says who has started them.
    """
    name = module(
        "native",
        "import ctypes\nlibc = ctypes.CDLL(None)\nthread = ctypes.c_ulong()\n"
        "libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.sleep, "
        "ctypes.c_void_p), ctypes.c_void_p(1000))\n",
    )
    executor = shared(2, [name])
    with caplog.at_level(logging.WARNING):
        assert executor.submit(pow, 2, 3).result(DEADLINE) == 8
        executor.shutdown()
    (record,) = [record for record in caplog.records if "native code" in record.getMessage()]
    assert "native" in record.getMessage()
    assert "OMP_NUM_THREADS" in record.getMessage()


@pytest.mark.parametrize("room", range(9, 21))
def test_no_descriptors_left_in_the_fork_server(shared, room):
    """The kernel drops descriptors that it cannot deliver.

    That is a start that failed, not a fork server that is lost, and passes with its cause.
    """
    executor = shared(1)
    first = executor.submit(os.getpid).result(DEADLINE)
    process = fork_server_of(executor)
    old = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (room, old[1]))
    os.kill(first, signal.SIGKILL)
    error = executor.submit(pow, 2, 3).exception(DEADLINE)
    assert (
        error is None or isinstance(error, WorkerCrashed) or "Too many open files" in str(error)
    ), error
    resource.prlimit(process, resource.RLIMIT_NOFILE, old)
    assert until(lambda: executor.submit(pow, 2, 3).exception(DEADLINE) is None)
    assert fork_server_of(executor) == process


# ---------------------------------------------------------------------------------------- arguments


def test_needs_a_preload():
    with pytest.raises(ValueError, match="preload"):
        CondaEnvExecutor(share_preload=True)


@pytest.mark.parametrize("world", ["PLAIN", "THREADS"])
def test_elsewhere_workers_start_separately(host, world):
    code, out, err = host("shared_elsewhere", **{f"WETLANDS_EXECUTOR_{world}": "1"}).finish()
    assert (code, out.splitlines()) == (0, ["1 True", "8"]), err


def test_initializer_runs_in_each_worker(shared, rendezvous):
    executor = shared(
        3, initializer=work.announce, initargs=(rendezvous.address, "starts")
    ).launch()
    assert {rendezvous.next().pid for _ in range(3)} == pids(executor)


def test_numbers_stay_the_same_after_a_change_of_hosts_paths(shared, module, monkeypatch, tmp_path):
    """What the host's project has learned since the fork server started is known to its later
    workers.
    """
    executor = shared(1, max_tasks_per_child=1)
    executor.submit(pow, 2, 3).result(DEADLINE)
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "came_later.py").write_text("value = 5\n")
    monkeypatch.syspath_prepend(str(folder))
    assert executor.submit("came_later:__name__.upper").result(DEADLINE) == "CAME_LATER"


def test_half_used_numbers_are_not_shared(shared, module):
    """A generator of normal numbers makes two at once, and keeps the second.

    That is the same in all forks unless it is thrown away.
    """
    pytest.importorskip("numpy")
    module("draws", "import numpy\nnumpy.random.seed(3)\nfirst = numpy.random.standard_normal()\n")
    executor = shared(1, ["draws"], max_tasks_per_child=1)
    found = {executor.submit("numpy.random:standard_normal").result(DEADLINE) for _ in range(4)}
    assert len(found) == 4


def test_another_generator_of_the_preload_is_left_alone(shared, module):
    """It cannot be seeded again; the workers start all the same."""
    np = pytest.importorskip("numpy")
    if not hasattr(np.random, "set_bit_generator"):
        pytest.skip("this numpy has one generator only")
    module("others", "import numpy\nnumpy.random.set_bit_generator(numpy.random.PCG64(3))\n")
    executor = shared(1, ["others"], max_tasks_per_child=1)
    assert {executor.submit("numpy.random:randint", 7, 8).result(DEADLINE) for _ in range(2)} == {7}


def test_random_is_not_touched_in_the_host(shared):
    random.seed(7)
    expected = random.Random(7).random()
    shared(2, ["random"]).launch()
    assert random.random() == expected
    assert sys.modules["random"] is random
