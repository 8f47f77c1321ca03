"""Where the time of one round trip goes: ``python -m tests.benchmarks --cases steps``.

Two views, both with all processes on one core, where nothing runs at the same time:

* the *timeline*: real round trips, with the clock read where the host enters and leaves a few
  functions, and where the worker takes the frame and runs the call. Reading it costs some tenths of
  a microsecond each time, so the whole is a little longer than without;
* the *steps*: the real functions, each called many times alone, with everything warm, the best of
  many batches. Their sum is less than the
  whole: in a real round trip caches and branch predictors are cold after each change of process.

A step whose function is gone, or has other parameters now, is left out and named, so that this file
need not change with the code that it measures; a lasting change of a step's code mends its few
lines here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Timed = Callable[[int], float]

ROOT = Path(__file__).resolve().parents[2]


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure in a process of its own (it patches functions and stays on one core).

    Return what ``lines`` prints.
    """
    command = [sys.executable, "-m", f"{__package__}.steps", "quick" if quick else "real"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
    )
    return dict(json.loads(done.stdout))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables, as they stand in ``docs/where-the-time-goes.md``."""
    total, floor = found["round_trip"], found["ping_pong"]
    yield (
        f"Round trip of a no-op, pinned: {total:.1f} us; raw pipe ping-pong: {floor:.1f} us; "
        f"ratio {total / floor:.1f}"
    )
    yield ""
    yield "| one round trip, as it happens (medians) | at us | us since |"
    yield "|---|---|---|"
    before = 0.0
    for label, at in found["timeline"]:
        yield f"| {label} | {at:.1f} | {at - before:.1f} |"
        before = at
    yield ""
    script = found.get("script", {})
    yield "| step alone, everything warm | where | us | us, function of the script |"
    yield "|---|---|---|---|"
    for where, label, value, _reason in found["steps"]:
        if value is not None:
            yield f"| {label} | {where} | {value:.2f} | {script.get(label, value):.2f} |"
    for where in (_HOST, _WORKER, _IO):
        known = {
            label: value
            for place, label, value, _reason in found["steps"]
            if place == where and value is not None and not label.startswith("(")
        }
        sums = sum(known.values()), sum(script.get(each, known[each]) for each in known)
        yield (
            f"| **sum** (without what is in brackets) | {where} | **{sums[0]:.2f}** | "
            f"**{sums[1]:.2f}** |"
        )
    for where, label, value, reason in found["steps"]:
        if value is None:
            yield f"\nLeft out: {label} ({where}): {reason}"


# --- timing


def alone(fn: Callable[[], object]) -> Timed:
    """Return the time of a function that can simply be repeated."""
    return in_batches(fn, 1000, lambda: None)


def in_batches(fn: Callable[[], object], batch: int, between: Callable[[], object]) -> Timed:
    """Return the time of a function after ``batch`` calls of which something has to be cleared
    away, which is not timed.
    """

    def timed(count: int) -> float:
        found = []
        for _ in range(max(5, count // batch)):
            start = time.perf_counter_ns()
            for _call in range(batch):
                fn()
            found.append(time.perf_counter_ns() - start)
            between()
        # The best batch is the one that was not disturbed. The empty loop costs some 15 ns a call,
        # which is below what matters here.
        return min(found) / batch

    return timed


class _Pipe:
    """A pipe whose both ends are here, and do not block."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.read, 65536):
                pass


# --- the steps

_STEPS: list[tuple[str, str, Callable[[Any], Timed]]] = []
_HOST, _IO, _WORKER, _KERNEL = (
    "host, submitting thread",
    "host, I/O thread (not in this round trip)",
    "worker",
    "kernel",
)


def step(where: str, label: str) -> Callable[[Callable[[Any], Timed]], Callable[[Any], Timed]]:
    """Add a step; the function gets what ``_measured_parts`` returns and returns its ``Timed``.

    A label in brackets is not added to the sum.
    """

    def add(build: Callable[[Any], Timed]) -> Callable[[Any], Timed]:
        _STEPS.append((where, label, build))
        return build

    return add


#: label -> what the step is for a function of the script, where that is another.
_OF_SCRIPT: dict[str, Callable[[Any], Timed]] = {}


def of_script(label: str) -> Callable[[Callable[[Any], Timed]], Callable[[Any], Timed]]:
    """Add what a step is for a function of the script."""

    def add(build: Callable[[Any], Timed]) -> Callable[[Any], Timed]:
        _OF_SCRIPT[label] = build
        return build

    return add


_USED = 3


def _script_function() -> object:
    """Use a number, a builtin and a module; this file is the script when it is measured."""
    return abs(_USED) and time and None


@step(_KERNEL, "(hand-over between two processes: half a pipe ping-pong)")
def _hand_over(have: Any) -> Timed:
    return lambda count: have.ping_pong * 1000 / 2


@step(_KERNEL, "(hand-over between two threads: half a ping-pong on two locks)")
def _thread_hand_over(have: Any) -> Timed:
    def once(count: int) -> float:
        there, here = threading.Lock(), threading.Lock()
        there.acquire()
        here.acquire()

        def answer() -> None:
            for _ in range(count):
                there.acquire()
                here.release()

        thread = threading.Thread(target=answer)
        thread.start()
        start = time.perf_counter_ns()
        for _ in range(count):
            there.release()
            here.acquire()
        taken = time.perf_counter_ns() - start
        thread.join()
        return taken / count / 2

    return lambda count: min(once(max(10, count // 10)) for _ in range(10))


@step(_HOST, "(a bare concurrent.futures.Future())")
def _future(have: Any) -> Timed:
    from concurrent.futures import Future

    return alone(Future)


@step(_HOST, "make the Task")
def _make_task(have: Any) -> Timed:
    return alone(functools.partial(have.Task, have.pool))


@step(_HOST, "encode a call without arguments")
def _encode(have: Any) -> Timed:
    encode, nothing = have.encoded.encode_at_once, have.nothing
    return alone(lambda: encode(nothing, (), None))


@of_script("encode a call without arguments")
def _encode_of_script(have: Any) -> Timed:
    at_once, again = have.encoded.encode_at_once, have.known_functions.encode_again
    function, pool = _script_function, have.pool
    for _ in range(3):
        have.executor.submit(function).result()
    assert again(function, (), pool) is not None
    return alone(lambda: at_once(function, (), None) or again(function, (), pool))


@of_script("(encode a call with one int)")
def _encode_int_of_script(have: Any) -> Timed:
    at_once, again = have.encoded.encode_at_once, have.known_functions.encode_again
    function, pool = _script_function, have.pool
    return alone(lambda: at_once(function, (1,), None) or again(function, (1,), pool))


@step(_HOST, "(encode a call with one int)")
def _encode_int(have: Any) -> Timed:
    encode, nothing = have.encoded.encode_at_once, have.nothing
    return alone(lambda: encode(nothing, (1,), None))


@step(_HOST, "look whether sys.path or log levels have changed")
def _context(have: Any) -> Timed:
    return alone(have.settings.current_settings)


@step(_HOST, "make the call")
def _make_call(have: Any) -> Timed:
    task = have.Task(have.pool)
    encoded, context = have.calls.encode(have.nothing, (), {}), have.settings.current_settings()
    return alone(lambda: have.pool.make_call(encoded, context, task))


@step(_HOST, "make the frame")
def _frame(have: Any) -> Timed:
    return alone(have.call().frame)


@step(_HOST, "write the frame and record it")
def _write(have: Any) -> Timed:
    pipe, process = have.process()
    direct = have.DirectSend(process, pipe.write, process.outbox, 0)
    call = have.call()
    process.outbox.queue_records(call)
    direct.open = True

    def write() -> None:
        assert direct.send(call)
        direct.sent.clear()

    return in_batches(write, 200, pipe.drain)


@step(_HOST, "(os.write of a frame alone)")
def _os_write(have: Any) -> Timed:
    pipe, frame = _Pipe(), have.call().frame()
    return in_batches(lambda: os.write(pipe.write, frame), 200, pipe.drain)


@step(_HOST, "sleep on the wakeup and wake up: it has rung")
def _wakeup(have: Any) -> Timed:
    wakeup = importlib.import_module("wetlands_executor.pool.wakeup").Wakeup()
    one = (1).to_bytes(8, sys.byteorder)

    def once() -> None:
        os.write(wakeup.fd, one)
        os.read(wakeup.fd, 8)

    both, ring = alone(once), in_batches(lambda: os.write(wakeup.fd, one), 200, lambda: None)
    return lambda count: both(count) - ring(count)


@step(_HOST, "look whether anything was printed")
def _outputs(have: Any) -> Timed:
    direct_receive = next(iter(have.pool.processes.values())).direct_send.receive
    return alone(lambda: direct_receive._outputs.poll(0))


@step(_HOST, "settle the Task quietly, and count it")
def _quietly(have: Any) -> Timed:
    pool = have.pool
    stats = type(pool.stats)(pool.callbacks)
    tasks = iter([have.Task(pool) for _ in range(200_000)])

    def once() -> None:
        task = next(tasks)
        have.settling.settle_quietly(task, None, 0.0, 1, 0.0)
        stats.returned_one(task)

    return in_batches(once, 1000, lambda: None)


@step(_WORKER, "read the frame")
def _read_frame(have: Any) -> Timed:
    channel, pipe = have.runner.channel, have.inbox
    data = b"".join([have.frame] * 200)
    os.write(pipe.write, data)
    return in_batches(channel.next_frame, 200, lambda: os.write(pipe.write, data))


@step(_WORKER, "unpack the frame")
def _unpack(have: Any) -> Timed:
    unpack, frame = have.wire.CALL.unpack_from, have.frame
    return alone(lambda: unpack(frame))


@step(_WORKER, "say on the page what runs since when")
def _page(have: Any) -> Timed:
    words, started, taken = have.runner.page.words, have.wire.STARTED_NS, have.wire.TAKEN

    def say() -> None:
        words[started] = time.monotonic_ns()
        words[taken] = 1

    return alone(say)


@step(_WORKER, "find the function, call it, look at its value")
def _run(have: Any) -> Timed:
    runner, frame = have.runner, have.frame
    _kind, flags, length, function, context, item, _mark = have.wire.CALL.unpack_from(frame)
    known = runner.definitions
    known.functions[function] = known.without_handle[function] = have.nothing
    known.task_positions[function] = None
    known.begin(context)
    return alone(lambda: runner._run(frame, flags, length, function, context, item))


@step(_WORKER, "(the function alone)")
def _function(have: Any) -> Timed:
    return alone(have.nothing)


@step(_WORKER, "look whether the signal handler is still ours, and the pid")
def _signal(have: Any) -> Timed:
    from _signal import SIGINT, getsignal

    getpid = os.getpid
    return alone(lambda: (getsignal(SIGINT), getpid()))


@step(_WORKER, "finish progress reports")
def _progress(have: Any) -> Timed:
    finish = have.runner.progress.finish
    return alone(lambda: finish(1))


@step(_WORKER, "hand over what was printed")
def _printed(have: Any) -> Timed:
    # Its streams have to be those of a worker, so it is measured in one.
    return lambda count: have.executor.submit(_time_finish_task, count).result() * 1000


@step(_WORKER, "put the answer onto the shared page and notify")
def _answer(have: Any) -> Timed:
    words, wire = have.runner.page.words, have.wire
    wakeup = importlib.import_module("wetlands_executor.pool.wakeup").Wakeup()
    one = (1).to_bytes(8, sys.byteorder)

    def once() -> None:
        if words[wire.AWAITED] != 1:
            words[wire.ANSWER] = wire.NONE | 10 << 32
            words[wire.ANSWERED] = 1
            os.write(wakeup.fd, one)

    return alone(once)


@step(_WORKER, "(pack and write the result, where no thread waits)")
def _send(have: Any) -> Timed:
    channel = have.runner.channel
    return in_batches(lambda: channel.send(have.wire.NONE, 1, b"", 10), 200, have.results.drain)


@step(_WORKER, "(pickle an int as the result)")
def _dumps(have: Any) -> Timed:
    dumps_result = importlib.import_module("wetlands_executor.worker.calls").dumps_result
    return alone(lambda: dumps_result(1, True))


@step(_IO, "go to sleep and wake up: one readable pipe")
def _wait(have: Any) -> Timed:
    poller, pipe = have.polling.new_poller(), _Pipe()
    os.write(pipe.write, b"x")
    poller.add_reader(pipe.read, have.polling.RESULTS, lambda: None)
    return alone(lambda: poller.wait(None, ()))


@step(_IO, "publish which workers are idle")
def _publish(have: Any) -> Timed:
    return alone(have.pool.shell.publish)


@step(_IO, "read the results and parse one")
def _read_results(have: Any) -> Timed:
    pipe, process = have.process()
    process.results._fd = pipe.read
    frame = have.wire.RESULT.pack(0, process.nonce, process.process.pid, have.wire.NONE, 10, 1)

    def once() -> None:
        os.write(pipe.write, frame)
        assert process.results.read()[0]

    timed = in_batches(once, 200, lambda: None)
    write = in_batches(lambda: os.write(pipe.write, frame), 200, pipe.drain)
    return lambda count: timed(count) - write(count)


@step(_IO, "(parse one result alone)")
def _parse(have: Any) -> Timed:
    _pipe, process = have.process()
    frame = have.wire.RESULT.pack(0, process.nonce, process.process.pid, have.wire.NONE, 10, 1)
    return alone(lambda: process.results._parse(frame))


@step(_IO, "register what a submitting thread has sent")
def _absorb(have: Any) -> Timed:
    _pipe, process = have.process()
    call = have.call()

    def once() -> None:
        process.direct_send.sent.append((call, 128))
        process.register()

    return alone(once)


@step(_IO, "settle the Task, no thread waits")
def _settle(have: Any) -> Timed:
    pool = have.pool
    tasks = iter([have.Task(pool) for _ in range(200_000)])
    return in_batches(lambda: have.settling.settle(next(tasks), None, None), 1000, lambda: None)


@step(_IO, "feed the state: sent, and finished")
def _state(have: Any) -> Timed:
    st = have.state
    state = have.PoolState(1)
    actions = state.handle(st.LaunchRequested())
    worker = next(action for action in actions if isinstance(action, st.StartWorker)).worker
    state.handle(st.WorkerReady(worker))
    item = st.Item()

    def once() -> None:
        state.handle(st.SentDirectly(worker, item))
        state.handle(st.ItemsFinished(worker, [item]))

    return alone(once)


def _time_finish_task(count: int) -> float:
    """In a worker: return the microseconds of ``finish_task``."""
    stdio = next(
        module for name, module in list(sys.modules.items()) if name.endswith("worker.stdio")
    )
    start = time.perf_counter()
    for _ in range(count):
        stdio.finish_task()
    return (time.perf_counter() - start) / count * 1e6


# --- what the steps need


def _measured_parts(executor: Any, ping_pong: float) -> Any:
    """Return the real modules, an open pool, a worker's runner on pipes of our own, and makers of
    the small things.
    """
    names = (
        "pool.polling",
        "serialize.calls",
        "serialize.encoded",
        "serialize.known_functions",
        "serialize.settings",
    )
    modules = {
        name.partition(".")[2]: importlib.import_module(f"wetlands_executor.{name}")
        for name in names
    }
    worker_process = importlib.import_module("wetlands_executor.pool.worker_process").WorkerProcess
    wire = importlib.import_module("wetlands_executor.worker.wire")
    nothing = importlib.import_module(f"{__package__}.functions").nothing
    pool = executor._pool
    have = SimpleNamespace(
        executor=executor, pool=pool, wire=wire, nothing=nothing, ping_pong=ping_pong, **modules
    )
    have.Task = importlib.import_module("wetlands_executor").Task
    have.settling = importlib.import_module("wetlands_executor.futures.settling")
    have.call = lambda: pool.make_call(
        have.calls.encode(nothing, (), {}), have.settings.current_settings(), have.Task(pool)
    )
    have.state = importlib.import_module("wetlands_executor.scheduling.messages")
    have.PoolState = importlib.import_module("wetlands_executor.scheduling.state").PoolState
    have.frame = have.call().frame()

    def process() -> tuple[_Pipe, Any]:
        pipe = _Pipe()
        poller = have.polling.new_poller()
        return pipe, worker_process(
            1, 0, SimpleNamespace(pid=os.getpid(), inbox=-1, results=-1, page=None), poller, 7
        )

    have.process = process
    have.DirectSend = importlib.import_module("wetlands_executor.pool.direct").DirectSend
    have.inbox, have.bulk, have.results, have.life = _Pipe(), _Pipe(), _Pipe(), _Pipe()
    os.set_blocking(have.inbox.read, True)
    fds = [
        os.dup(fd) for fd in (have.inbox.read, have.bulk.read, have.results.write, have.life.read)
    ]
    have.runner = importlib.import_module("wetlands_executor.worker.runner").Runner([*fds, -1])
    return have


def _steps(have: Any, count: int) -> list[tuple[str, str, float | None, str]]:
    found: list[tuple[str, str, float | None, str]] = []
    for where, label, build in _STEPS:
        try:
            found.append((where, label, build(have)(count) / 1000, ""))
        except (
            Exception
        ) as error:  # the function is gone or was changed; the other steps are still worth having
            found.append((where, label, None, f"{type(error).__name__}: {error}"))
    return found


# --- the timeline

#: (module, name in it, what is said of the moment before, and of the one after)
_MOMENTS = (
    ("wetlands_executor.pool.pool", "Pool.submit", "Task made, call encoded", None),
    (
        "wetlands_executor.futures.waiting",
        "sleep",
        "result() waits on the return direct_receive",
        None,
    ),
    ("wetlands_executor.pool.direct_receive", "settle_quietly", "answer read", "Task settled"),
    (
        "wetlands_executor.pool.result_stream",
        "ResultStream.read",
        "I/O thread awake",
        "result read and parsed",
    ),
)


def _timeline(executor: Any, count: int) -> list[tuple[str, float]]:
    """Return the moments of a round trip in microseconds after its beginning, in order."""
    functions = importlib.import_module(f"{__package__}.functions")
    seen: dict[str, int] = {}
    clock = time.monotonic_ns
    undo = []
    for module, name, before, after in _MOMENTS:
        try:
            *inside, attribute = name.split(".")
            owner = functools.reduce(getattr, inside, importlib.import_module(module))
            original = getattr(owner, attribute)
        except (ImportError, AttributeError):
            continue
        undo.append((owner, attribute, original))
        setattr(owner, attribute, _stamping(original, seen, before, after))
    moments: dict[str, list[float]] = {}
    try:
        for _ in range(count):
            seen.clear()
            start = clock()
            task = executor.submit(functions.clock)
            seen["submit() has returned"] = clock()
            ran = task.result()
            seen["result() has returned"] = clock()
            seen["function runs"] = ran
            with contextlib.suppress(AttributeError, IndexError, StopIteration):
                process = next(iter(executor._pool.processes.values()))
                seen["worker has read the frame"] = process.process.page.words[_started_word()]
            for label, at in seen.items():
                moments.setdefault(label, []).append((at - start) / 1000)
    finally:
        for owner, attribute, original in undo:
            setattr(owner, attribute, original)
    # A moment that few round trips have (a result that was there before the submitter slept) is
    # none of the typical one.
    typical = {
        label: statistics.median(values)
        for label, values in moments.items()
        if len(values) > count / 2
    }
    return sorted(typical.items(), key=lambda item: item[1])


def _stamping(
    original: Callable[..., Any], seen: dict[str, int], before: str, after: str | None
) -> Callable[..., Any]:
    clock = time.monotonic_ns

    @functools.wraps(original)
    def stamped(*args: Any, **kwargs: Any) -> Any:
        seen[before] = clock()
        value = original(*args, **kwargs)
        if after is not None:
            seen[after] = clock()
        return value

    return stamped


def _started_word() -> int:
    return int(importlib.import_module("wetlands_executor.worker.wire").STARTED_NS)


def _main() -> None:
    quick = sys.argv[1:] == ["quick"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from wetlands_executor import CondaEnvExecutor

    from . import cases_latency, floors, systems

    trips = 50 if quick else 5000
    ping_pong = statistics.median(floors.ping_pong(trips)["time"] for _ in range(3)) * 1e6
    with CondaEnvExecutor(max_workers=1) as executor:
        pool = systems.Pool(executor)
        cases_latency.round_trip(pool, trips)
        round_trip = (
            statistics.median(cases_latency.round_trip(pool, trips)["time"] for _ in range(3)) * 1e6
        )
        timeline = _timeline(executor, trips)
        have = _measured_parts(executor, ping_pong)
        count = 200 if quick else 20_000
        steps = _steps(have, count)
        script = {label: build(have)(count) / 1000 for label, build in _OF_SCRIPT.items()}
    json.dump(
        {
            "round_trip": round_trip,
            "ping_pong": ping_pong,
            "timeline": timeline,
            "steps": steps,
            "script": script,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    _main()
