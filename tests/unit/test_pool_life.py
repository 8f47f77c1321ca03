"""The start of workers and the end of a pool, with parts around them that record. No process."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.parts import Crew, Loop, Pipes, SharedPage
from wetlands_executor import Task
from wetlands_executor.errors import WorkerStartError
from wetlands_executor.pool import lifecycle, start
from wetlands_executor.pool.call import FAILED
from wetlands_executor.pool.closing import Closing
from wetlands_executor.pool.direct_receive import AbandonedWaits
from wetlands_executor.pool.lifecycle import Held, Lifecycle
from wetlands_executor.pool.readiness import Readiness
from wetlands_executor.pool.start import Starter, StartSettings
from wetlands_executor.pool.worker_process import WorkerPhase, WorkerProcess
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState
from wetlands_executor.serialize.interpreter import RemoteInterpreter
from wetlands_executor.worker import wire


class Recorder:
    """A part of which every method only notes that it was called."""

    def __init__(self, told: list[Any], **fields: Any) -> None:
        self._told = told
        vars(self).update(fields)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self._told.append((name, *args))


# --------------------------------------------------------------------------------- starting workers


class NewPipes(Pipes):
    """What ``spawn.Process`` would be: made without a process."""

    def ship(self, data: bytes) -> bytes:
        self.done.append(("shipped", len(data) > 0))
        return b"the rest of the bundle"

    def meet(self, pid: int) -> None:
        self.done.append(("met", pid))


class Started:
    """The part, and what it uses; the start thread is the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, timeout: float | None = None) -> None:
        self.crew = Crew()
        self.pipes = NewPipes()
        monkeypatch.setattr(start.spawn, "Process", lambda *_: self.pipes)
        self.told: list[Any] = []
        self.over = False
        self.launch: Callable[[int], Any] = lambda _index: (["python"], {}, None)
        source: Any = Recorder(self.told, failures=0, make=lambda *_: None)
        settings = StartSettings(
            launch=lambda index: self.launch(index),
            remote=RemoteInterpreter(),
            source=source,
            preload=["math"],
            initializer=None,
            timeout=timeout,
        )
        self.settings = settings
        told, crew = self.told, self.crew
        parts: Any = SimpleNamespace(
            loop=crew.loop,
            workers=crew.workers,
            timers=crew.timers,
            deadlines=SimpleNamespace(worker_timeout=None),
            inbound=Recorder(told),
            output=Recorder(told),
            direct_calls=Recorder(told, abandoned=AbandonedWaits()),
            reaper=Recorder(told),
            readiness=Readiness(
                loop=crew.loop,
                workers=crew.workers,
                state=PoolState(1),
                feed=crew.feed,
                label="here",
            ),
            watchdog=Recorder(told, armed=True),
            label="here",
            feed=crew.feed,
            over=lambda: self.over,
            pool=(1, 2),
        )
        self.part = Starter(settings, parts)
        thread: Any = SimpleNamespace(put=crew.loop.post)
        self.part.thread = thread

    def start(self) -> None:
        self.part.start(st.StartWorker(1, 0))

    def started(self) -> WorkerProcess:
        self.start()
        self.crew.loop.turn()
        return self.crew.workers.processes[1]


def hello(pid: int = 77) -> bytes:
    return pickle.dumps({"magic": "", "version": "3.9.1", "prefix": "/p", "pid": pid}, 4)


def test_a_new_process_gets_the_bundle_then_its_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Started(monkeypatch)
    process = host.started()
    assert host.crew.workers.starting == {}
    data = host.crew.loop.poller.written[host.pipes.bulk]
    opening = b"the rest of the bundle"
    assert data.startswith(opening)
    first, length, _number = wire.RECORD.unpack_from(data, len(opening))
    assert first & 0xFF == wire.CONFIG
    begin = len(opening) + wire.RECORD.size
    config = pickle.loads(data[begin : begin + length])
    assert (config["nonce"], config["preload"]) == (process.nonce, ["math"])
    assert (config["pool"], config["max_workers"]) == (1, 2)
    assert host.pipes.results in host.crew.loop.poller.readers
    assert [name for name, *_ in host.told] == ["watch", "watch"], "its output, and its end"
    assert host.crew.feed.take() == []


def test_a_worker_is_ready_after_its_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Started(monkeypatch, timeout=5.0)
    process = host.started()
    host.part.on_message(process, wire.HELLO, hello())
    assert process.phase is WorkerPhase.GREETED
    assert process.hello is not None
    assert process.hello["version"] == "3.9.1"
    assert process.foreign, "another magic number"
    assert host.crew.feed.take() == []
    host.part.on_message(process, wire.READY, b"localhost:5678")
    assert (process.phase, process.debugger) == (WorkerPhase.READY, "localhost:5678")
    assert host.crew.feed.take() == [st.WorkerReady(1)]
    assert host.crew.loop.fire() == [], "the time that it had is over no more"


def test_a_worker_that_is_not_ready_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Started(monkeypatch, timeout=5.0)
    process = host.started()
    process.output.keep(b"it hangs here\n")
    assert host.crew.loop.fire() == [5.0]
    assert host.pipes.done[-1] == "killed"
    assert isinstance(process.reason, WorkerStartError)
    assert "not ready within 5 s" in str(process.reason)
    assert "it hangs here" in str(process.reason)


@pytest.mark.parametrize(
    ("error", "final"),
    [(FileNotFoundError("no python"), True), (BlockingIOError(11, "again"), False)],
)
def test_what_cannot_be_started_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, final: bool
) -> None:
    host = Started(monkeypatch)

    def launch(_index: int) -> Any:
        raise error

    host.launch = launch
    host.start()
    assert host.crew.workers.starting == {1: 0}
    host.crew.loop.turn()
    (event,) = host.crew.feed.take()
    assert isinstance(event, st.WorkerExited)
    assert (event.worker, event.final) == (1, final), "another try may succeed, or not"
    assert event.report is not None
    assert isinstance(event.report.error, WorkerStartError)
    assert event.report.error.__cause__ is error
    assert (host.crew.workers.starting, host.crew.workers.processes) == ({}, {})


def test_a_process_that_cannot_be_sent_its_sources_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Started(monkeypatch)

    def ship(_data: bytes) -> bytes:
        raise BrokenPipeError("it has exited")

    host.pipes.ship = ship  # type: ignore[method-assign]
    host.start()
    host.crew.loop.turn()
    assert host.pipes.done == ["reaped", "closed"]
    (event,) = host.crew.feed.take()
    assert isinstance(event, st.WorkerExited)


def test_a_start_that_is_given_up_ends_the_process_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Started(monkeypatch)
    host.start()
    host.part.give_up(1)
    assert ("cancel",) in host.told, "its environment need not be made"
    host.crew.loop.turn()
    process = host.crew.workers.processes[1]
    assert process.phase is WorkerPhase.ABANDONED
    assert host.pipes.done[-1] == "killed"


def test_a_process_of_a_pool_that_has_ended_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Started(monkeypatch)
    host.start()
    host.over = True
    host.crew.loop.turn()
    assert host.pipes.done[-3:] == ["killed", "reaped", "closed"]
    assert (host.crew.workers.processes, host.crew.feed.take()) == ({}, [])


def test_a_worker_says_why_it_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Started(monkeypatch)
    process = host.started()
    host.part.on_message(process, wire.START_FAILED, b"why")
    assert process.failure == b"why"
    assert host.crew.feed.take() == [], "its exit ends it"


# ------------------------------------------------------------------------------------ end of a pool


class EndingLoop(Loop):
    """A loop that notes how it is ended."""

    used = True
    thread = None

    def __init__(self, told: list[Any]) -> None:
        super().__init__()
        self.told = told
        self.delayed: list[tuple[float, Callable[[], object]]] = []

    def close_unused(self, _started: bool) -> bool:
        return not self.used

    def later(self, delay: float, job: Callable[[], object]) -> None:
        self.delayed.append((delay, job))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.told.append(name)


class TerminablePipes(Pipes):
    def terminate(self) -> None:
        self.done.append("terminated")


class Ending:
    """The part, with a worker that runs a call."""

    def __init__(self) -> None:
        self.crew = Crew()
        self.told: list[Any] = []
        self.loop: Any = EndingLoop(self.told)
        self.crew.loop = self.loop
        self.page = SharedPage()
        self.process = self.crew.process(page=self.page)
        self.pipes = TerminablePipes(self.page)
        any_pipes: Any = self.pipes
        self.process.process = any_pipes
        self.state = PoolState(1)
        self.closing = Closing(self.state)
        self.held = Held()
        told = self.told
        parts: Any = SimpleNamespace(
            loop=self.loop,
            state=self.state,
            shell=Recorder(told, feed=self.crew.feed),
            workers=self.crew.workers,
            direct_calls=Recorder(told),
            timers=self.crew.timers,
            cancelling=Recorder(told, refuse_all=lambda: [lambda: told.append("refused")]),
            announcing=Recorder(told, calls={}),
            readiness=Recorder(told),
            reaper=Recorder(told),
            starter=Recorder(told),
            settings=Recorder(told, fork_server=None),
            output=SimpleNamespace(thread=Recorder(told)),
            decoding=Recorder(told),
            callbacks=Recorder(told, started=False),
            closing=self.closing,
            held=self.held,
            label="here",
            pool=None,
        )
        self.part = Lifecycle(parts)

    def deferred(self) -> Task[Any]:
        guard: Any = SimpleNamespace(withdraw=lambda: True, input=lambda: "")
        return Task(None, "deferred", guard=guard)

    def running(self) -> Any:
        call = self.crew.call(self.process)
        self.page.words[wire.TAKEN] = call.number
        return call


def test_a_pool_that_was_never_used_ends_at_once() -> None:
    pool = Ending()
    pool.loop.used = False
    done: list[str] = []
    pool.part.when_finished(lambda: done.append("finished"))
    pool.part.shutdown()
    assert pool.closing.refusing
    assert pool.part.finished.is_set()
    assert pool.part.workers_gone.is_set()
    assert done == ["finished"]
    assert ("release",) in pool.told
    assert not pool.loop.posted
    pool.part.when_finished(lambda: done.append("late"))
    assert done == ["finished", "late"]


@pytest.mark.parametrize("cancel", [False, True])
def test_a_shutdown_cancels_what_was_not_started(cancel: bool) -> None:
    pool = Ending()
    unstarted, dependent = pool.deferred(), pool.deferred()
    pool.held.unstarted.add(unstarted)
    pool.held.dependents.add(dependent)
    pool.part.shutdown(cancel_pending=cancel, reason="it is late")
    assert unstarted.cancelled()
    assert unstarted.error == "it is late before the task was started"
    assert dependent.cancelled() is cancel
    assert pool.closing.reason == ("it is late" if cancel else None)
    pool.loop.turn()
    assert pool.crew.feed.take() == [st.ShutdownRequested(cancel)]
    assert not pool.part.finished.is_set(), "its workers end first"


@pytest.mark.parametrize("kill", [False, True])
def test_workers_are_ended_at_once_or_asked_before(kill: bool) -> None:
    pool = Ending()
    pool.part.terminate(kill=kill, why="by its user")
    pool.loop.turn()
    assert pool.pipes.done == ([] if kill else ["terminated"])
    assert pool.crew.feed.take() == [st.TerminateRequested()]
    assert pool.closing.kill_reason == "its worker was killed by its user"
    assert "by its user" in str(pool.closing.reason)


def test_a_pool_that_winds_down_asks_then_interrupts_then_kills() -> None:
    pool = Ending()
    call = pool.running()
    pool.part.wind_down("the window was closed")
    pool.loop.turn()
    assert pool.page.words[wire.CANCEL_WORD] == call.number
    assert pool.crew.feed.take() == [st.ShutdownRequested(True)]
    wait = lifecycle.INTERRUPT_AFTER
    assert [delay for delay, _ in pool.loop.delayed] == [wait, 2 * wait]
    pool.loop.delayed[0][1]()
    pool.loop.turn()
    assert pool.pipes.done == [("signal", signal.SIGINT)]
    assert pool.page.words[wire.INTERRUPT_WORD] == call.number
    pool.loop.delayed[1][1]()
    pool.loop.turn()
    assert pool.crew.feed.take() == [st.TerminateRequested()]
    assert "because the window was closed" in str(pool.closing.kill_reason)


def test_a_pool_that_winds_down_later_may_have_ended_by_then() -> None:
    pool = Ending()
    pool.part.wind_down_later(-3.0, "x")
    assert [delay for delay, _ in pool.loop.delayed] == [0.0]
    pool.loop.ended = True
    pool.part.wind_down_later(5.0, "x")
    assert len(pool.loop.delayed) == 1


def test_the_end_delivers_before_it_says_so() -> None:
    pool = Ending()
    pool.part.when_finished(lambda: pool.told.append("told"))
    pool.part.end()
    assert pool.crew.workers.processes == {}
    names = [each if type(each) is str else each[0] for each in pool.told]
    assert names.index("reject_late") < names.index("close", names.index("reject_late"))
    assert names[-4:] == ["end", "end", "end", "told"], "output, decoders, callbacks"
    assert pool.part.finished.is_set()


def test_a_bug_of_ours_fails_every_call_that_is_known() -> None:
    pool = Ending()
    running, waiting = pool.running(), pool.crew.call()
    pool.state.handle(st.Submitted([waiting]))
    error = LookupError("a bug")
    pool.part.fail(error)
    assert pool.pipes.done[:2] == ["killed", "reaped"]
    assert {(kind, number) for kind, number, _ in pool.crew.receiver.told} == {
        ("outcome", running.number),
        ("outcome", waiting.number),
    }
    failures = {outcome.data for _, _, outcome in pool.crew.receiver.told}
    assert failures == {pool.closing.broken}
    assert {outcome.kind for _, _, outcome in pool.crew.receiver.told} == {FAILED}
    assert pool.closing.broken is not None
    assert pool.closing.broken.__cause__ is error
    assert "refused" in pool.told
    assert pool.told[-1] == ("close",)


def test_one_step_that_fails_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    pool = Ending()
    running = pool.running()

    def kill_tree() -> None:
        raise LookupError("another bug")

    pool.pipes.kill_tree = kill_tree  # type: ignore[method-assign]
    pool.part.fail(ValueError("a bug"))
    assert [number for _, number, _ in pool.crew.receiver.told] == [running.number]
    assert "failed as well" in caplog.text


def test_a_forked_child_lets_go_of_the_pool() -> None:
    pool = Ending()
    pool.part.after_fork_in_child()
    assert pool.closing.refusing
    assert pool.crew.workers.processes == {}
    assert ("forget",) in pool.told
    assert pool.pipes.done == [], "the processes are the parent's"
