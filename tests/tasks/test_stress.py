"""Thousands of tasks under random cancels, kills, time-outs, crashes, listeners and awaits.

Every guarantee, checked for every task.

``WETLANDS_SEED=n`` repeats a run. What is checked, whatever happens: each task reaches exactly one
final state and keeps it; its terminal event, its listeners' and its callbacks come exactly once,
STARTED before all others; what was not harmed has its right result; the counts add up;
everything ends in bounded time.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import pytest

from tests.support.rendezvous import DEADLINE
from tests.tasks import workload
from wetlands_executor import (
    CondaEnvExecutor,
    DependencyFailed,
    InProcessExecutor,
    Task,
    TaskEvent,
    TaskEventType,
    TaskStatus,
    TaskTimeoutError,
    WorkerCrashed,
    WorkerUnresponsive,
)

#: Seconds within which a storm has to be over; far beyond what it takes.
LIMIT = 90.0
#: Long storms of one run, each another one; they take all processors. ``.ci/run`` takes three.
LONG_STORMS = int(os.environ.get("WETLANDS_STORMS", "1"))

KINDS = {
    "quick": 40,
    "fail": 6,
    "report": 10,
    "print": 3,
    "log": 3,
    "die": 2,
    "nap": 8,
    "cooperate": 8,
    "depend": 8,
}


class Witness:
    """Counts what listeners and callbacks hear of each task, and what they see."""

    def __init__(self) -> None:
        # Guards the fields: callbacks of late listeners may run in the caller.
        self._lock = threading.Lock()
        self.terminal: collections.Counter[Task[Any]] = collections.Counter()
        self.own: collections.Counter[Task[Any]] = collections.Counter()
        self.expected: collections.Counter[Task[Any]] = collections.Counter()
        self.callbacks: collections.Counter[Task[Any]] = collections.Counter()
        self.states: dict[Task[Any], set[TaskStatus]] = collections.defaultdict(set)
        self.started: set[Task[Any]] = set()
        self.complaints: list[str] = []

    def __call__(self, event: TaskEvent) -> None:
        task = event.task
        with self._lock:
            if self.terminal[task]:
                self.complaints.append(f"{event.type} after the terminal event of {task}")
            if event.type is TaskEventType.STARTED:
                if task in self.started:
                    self.complaints.append(f"STARTED twice: {task}")
                self.started.add(task)
            elif event.type is TaskEventType.UPDATE and task not in self.started:
                self.complaints.append(f"UPDATE before STARTED: {task}")
            elif event.type.is_terminal:
                self.terminal[task] += 1
                self.states[task].add(task.status)
                if (
                    event.type is not TaskEventType.CANCELATION
                    and task not in self.started
                    and task.worker_pid is not None
                ):
                    self.complaints.append(f"{event.type} without STARTED: {task}")

    def own_listener(self, event: TaskEvent) -> None:
        if event.type.is_terminal:
            with self._lock:
                self.own[event.task] += 1
                self.states[event.task].add(event.task.status)

    def callback(self, task: Any) -> None:
        with self._lock:
            self.callbacks[task] += 1
            self.states[task].add(task.status)


class Storm:
    """Submits, and harms what it has submitted."""

    def __init__(
        self, executor: CondaEnvExecutor, rng: random.Random, kinds: Mapping[str, int] = KINDS
    ) -> None:
        self.executor = executor
        self.call_kinds = kinds
        self.rng = rng
        self.witness = Witness()
        executor.listen(self.witness)
        self.tasks: list[Task[Any]] = []
        self.kinds: dict[Task[Any], str] = {}
        self.limited: set[Task[Any]] = set()
        self.harmed: set[Task[Any]] = set()
        self.sigkills = 0
        self.awaiting: list[concurrent.futures.Future[object]] = []
        options = executor.options
        self.views = [
            (executor, False),
            (executor, False),
            (options(priority=1), False),
            (options(retries=2, retry_on=(ValueError, WorkerCrashed)), False),
            (options(timeout=0.05), True),
            (options(cancel_grace=0.005), False),
            (options(start=False), False),
            (options(retries=1, timeout=0.05, cancel_grace=0.01), True),
        ]

    def blow(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        rng = self.rng
        names, weights = list(self.call_kinds), list(self.call_kinds.values())
        for _ in range(count):
            kind = rng.choices(names, weights)[0]
            view, limited = rng.choice(self.views)
            if kind == "depend" and self.tasks:
                task = view.submit(workload.add, "from ", right=rng.choice(self.tasks[-50:]))
            else:
                task = view.submit(
                    workload.chance,
                    "quick" if kind == "depend" else kind,
                    rng.choice((0.0, 0.002, 0.02, 0.08)),
                )
            self.tasks.append(task)
            self.kinds[task] = kind
            if limited:
                self.limited.add(task)
            if rng.random() < 0.3:
                self._watch(task)
            if rng.random() < 0.1:
                self.awaiting.append(
                    asyncio.run_coroutine_threadsafe(_wait(task, rng.random() < 0.3), loop)
                )
                self.harmed.add(task)
            self._harm()

    def _watch(self, task: Task[Any]) -> None:
        task.listen(self.witness.own_listener)
        task.add_done_callback(self.witness.callback)
        self.witness.expected[task] += 1

    def _harm(self) -> None:
        rng = self.rng
        chance = rng.random()
        if chance < 0.6:
            return
        victim = rng.choice(self.tasks[-60:])
        if chance < 0.72:
            self.harmed.add(victim)
            victim.cancel()
        elif chance < 0.76:
            self.harmed.add(victim)
            victim.kill()
        elif chance < 0.86:
            victim.start()
        elif chance < 0.90:
            self._watch(victim)
        elif chance < 0.905:
            self._sigkill()
        elif chance < 0.92:
            self.executor.get_progress()
        elif chance < 0.93:
            rng.choice(self.tasks[-60:]).running()
        elif chance < 0.94:
            concurrent.futures.wait(self.tasks[-20:], timeout=0.002)

    def _sigkill(self) -> None:
        # Three starts in a row that are killed are a WorkerStartError, by the contract; that is
        # tested elsewhere.
        infos = [info for info in self.executor.workers() if info.state in ("idle", "busy")]
        if infos:
            try:
                process = psutil.Process(self.rng.choice(infos).pid)
                if process.ppid() == os.getpid():
                    process.send_signal(signal.SIGKILL)
                    self.sigkills += 1
            except psutil.Error:
                pass  # it has ended meanwhile

    def calm(self, limit: float) -> None:
        """Start what has not been started, wait for all, and look at everything."""
        for task in self.tasks:
            task.start()
        late = [task for task in self.tasks if self.rng.random() < 0.2]
        for task in late:
            self._watch(task)
        concurrent.futures.wait(self.tasks, timeout=limit)
        assert [task for task in self.tasks if not task.done()] == []
        assert self.executor.wait_all(limit)
        assert not concurrent.futures.wait(self.awaiting, timeout=limit).not_done
        finals = {task: task.status for task in self.tasks}
        progress = self.executor.get_progress()
        self.executor.shutdown()
        self.check(finals, progress)

    def check(self, finals: dict[Task[Any], TaskStatus], progress: dict[str, Any]) -> None:
        witness = self.witness
        assert witness.complaints == []
        for task in self.tasks:
            status = finals[task]
            assert status.is_finished()
            assert task.status is status, "a final state is final"
            assert witness.terminal[task] == 1, (
                f"{witness.terminal[task]} terminal events of {task}"
            )
            assert witness.own[task] == witness.callbacks[task] == witness.expected[task], task
            assert witness.states[task] == {status}, task
            self._check_outcome(task, status)
        counts = collections.Counter(finals.values())
        assert (
            progress["total"] == progress["completed"] + progress["failed"] + progress["canceled"]
        )
        assert progress["completed"] == counts[TaskStatus.COMPLETED]
        assert progress["failed"] == counts[TaskStatus.FAILED]
        assert progress["canceled"] <= counts[TaskStatus.CANCELED]
        print(f"{dict(counts)}, {self.sigkills} SIGKILLs")

    def _check_outcome(self, task: Task[Any], status: TaskStatus) -> None:
        kind = self.kinds[task]
        if status is TaskStatus.COMPLETED:
            wanted = {"depend": ("quick",), "cooperate": ("cooperate",)}.get(kind, (kind,))
            assert task.value in wanted or str(task.value).startswith("from "), task.value
            assert kind not in ("fail", "die")
            if kind == "report":
                assert (task.current, task.maximum, task.outputs) == (20, 20, {"done": True}), (
                    "the last report is there"
                )
        elif status is TaskStatus.CANCELED:
            assert task in self.harmed or kind == "depend", f"{task} ({kind}) was not cancelled"
        else:
            error = task.exception(0)
            allowed: tuple[type[BaseException], ...] = (
                (WorkerCrashed,) if self.sigkills or kind == "die" else ()
            )
            if task in self.limited:
                allowed += (TaskTimeoutError,)
            if kind == "fail":
                allowed += (ValueError,)
            if kind == "depend":
                allowed += (DependencyFailed, TaskTimeoutError)
            assert isinstance(error, allowed), f"{kind}: {error!r}"


async def _wait(task: Task[Any], cancel: bool) -> object:
    try:
        if cancel:
            return await asyncio.wait_for(asyncio.ensure_future(_plainly(task)), 0.01)
        async for event in task.events():
            if event.type.is_terminal:
                return event.type
    except (Exception, asyncio.CancelledError) as error:
        return type(error)
    return None


async def _plainly(task: Task[Any]) -> object:
    return await task


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_storm(
    make: Callable[..., CondaEnvExecutor],
    stress_rng: random.Random,
    loop: asyncio.AbstractEventLoop,
    workers: int,
) -> None:
    storm = Storm(make(workers), stress_rng)
    storm.blow(700, loop)
    storm.calm(LIMIT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_storm_of_threads(
    stress_rng: random.Random, loop: asyncio.AbstractEventLoop, workers: int
) -> None:
    """The same in threads of this process, of which none can die."""
    kinds = {kind: weight for kind, weight in KINDS.items() if kind != "die"}
    storm = Storm(InProcessExecutor(workers), stress_rng, kinds)  # type: ignore[arg-type]
    storm.blow(700, loop)
    storm.calm(LIMIT)


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Other people's processes take what they can get of the processors."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "import os\nos.nice(1)\nwhile True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    yield
    for process in loops:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("repetition", range(LONG_STORMS))
def test_a_long_storm_on_a_busy_machine(
    make: Callable[..., CondaEnvExecutor],
    stress_rng: random.Random,
    loop: asyncio.AbstractEventLoop,
    busy_machine: None,
    repetition: int,
) -> None:
    storm = Storm(make(3), stress_rng)
    storm.blow(4000, loop)
    storm.calm(4 * LIMIT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_storm_with_limits_on_silence(
    make: Callable[..., CondaEnvExecutor],
    stress_rng: random.Random,
    loop: asyncio.AbstractEventLoop,
) -> None:
    storm = Storm(make(2, worker_timeout=10.0, task_timeout=20.0, cancel_grace=0.02), stress_rng)
    storm.blow(5000, loop)
    storm.calm(4 * LIMIT)


@pytest.mark.parametrize(
    "ending", ["shutdown", "cancel_futures", "kill_workers", "terminate_workers", "without waiting"]
)
def test_ends_at_any_moment(
    make: Callable[..., CondaEnvExecutor], stress_rng: random.Random, ending: str
) -> None:
    """The pool ends while tasks are submitted, waiting, running, retried, depending and crashing.

    All reach a final state, once.
    """
    rng = stress_rng
    for _ in range(4):
        executor = make(2)
        witness = Witness()
        executor.launch().listen(witness)
        executor.submit(workload.add, 1).result(DEADLINE)
        tasks: list[Task[Any]] = []
        moment = rng.randrange(60)
        ended = threading.Event()

        def end(executor: CondaEnvExecutor = executor, ended: threading.Event = ended) -> None:
            if ending == "kill_workers":
                executor.kill_workers()
            elif ending == "terminate_workers":
                executor.terminate_workers()
            else:
                executor.shutdown(
                    wait=ending != "without waiting", cancel_futures=ending == "cancel_futures"
                )
            ended.set()

        thread = threading.Thread(target=end)
        for number in range(60):
            if number == moment:
                thread.start()
            view = rng.choice(
                [
                    executor,
                    executor.options(retries=1, retry_on=(ValueError, WorkerCrashed)),
                    executor.options(start=False),
                ]
            )
            try:
                if tasks and rng.random() < 0.2:
                    tasks.append(view.submit(workload.add, "from ", right=rng.choice(tasks)))
                else:
                    kind = rng.choice(
                        ("quick", "fail", "report", "nap", "die", "cooperate", "print")
                    )
                    tasks.append(view.submit(workload.chance, kind, 0.01))
            except RuntimeError:
                break  # the executor has been shut down; BrokenProcessPool is one too
            if rng.random() < 0.15:
                # so that the end meets tasks in every state
                concurrent.futures.wait([rng.choice(tasks)], timeout=0.01)
            if rng.random() < 0.2:
                try:
                    rng.choice(tasks).start()
                except RuntimeError:
                    break
        if not thread.ident:
            thread.start()
        thread.join(DEADLINE)
        assert ended.is_set()
        executor.shutdown(wait=True)
        assert [task for task in tasks if not task.done()] == []
        assert witness.complaints == []
        for task in tasks:
            assert witness.terminal[task] == 1, (task, witness.terminal[task])
            assert witness.states[task] == {task.status}


def test_cancel_crash_result_timeout_and_shutdown_race_for_one_task(
    make: Callable[..., CondaEnvExecutor], stress_rng: random.Random
) -> None:
    """All that can end a task at the same moment; one of them does, once."""
    rng = stress_rng
    executor = make(2)
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(80):
        witness = Witness()
        task = executor.options(timeout=0.02, start=False, cancel_grace=0.002).submit(
            workload.chance, "cooperate", 0.02
        )
        task.listen(witness).add_done_callback(witness.callback)
        task.start()
        actions: list[Callable[[], object]] = [
            task.cancel,
            task.kill,
            task.cancel,
            lambda: task.wait_for(DEADLINE),
        ]
        rng.shuffle(actions)
        delay = rng.uniform(0, 0.03)
        threads = [
            threading.Timer(delay + rng.uniform(0, 0.002), action)
            for action in actions[: rng.randrange(4)]
        ]
        for thread in threads:
            thread.start()
        task.wait_for(DEADLINE)
        first = task.status
        for thread in threads:
            thread.join()
        assert task.status is first
        deadline = time.monotonic() + DEADLINE
        while (
            not (witness.callbacks[task] and witness.terminal[task]) and time.monotonic() < deadline
        ):
            time.sleep(0.0005)
        outcomes[first.value] += 1
        assert executor.submit(workload.add, 1).result(DEADLINE) == 1
        assert (witness.terminal[task], witness.callbacks[task]) == (1, 1)
        if first is TaskStatus.FAILED:
            assert isinstance(task.exception(), (TaskTimeoutError, WorkerUnresponsive))
    print(dict(outcomes))
