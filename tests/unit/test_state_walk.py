"""Random walks through the pool's state, driven by a shell that knows nothing but the actions it
was handed.

``Shell`` plays ``pool.py`` and all its worker processes. It never looks into ``PoolState`` (except
through ``check_invariants`` and ``can_act``, which the real shell reads too): what it believes
about workers and items comes from the actions, and what its workers do is decided by dice. Every
rule that it checks is therefore one that a user could notice:

* every item ends exactly once: finished, refused, cancelled, lost or failed; none is started twice,
  none is started after its end;
* a death costs at most the item that had started, and not even that if it has another try; the
  others are handed out again;
* nothing is sent to a worker that is not ready, was told to end or is dead; never more than
  ``max_workers`` processes; never more items than the credit, or in a lifetime than the quota;
* first the urgent, then first come, first served; what came back is served before what is new;
* nothing waits while a worker has nothing to do, or while no worker will ever come;
* a request to cancel is answered, truthfully; the pool is closed once, and only when nothing is
  left;
* every walk comes to its end when the dice stop throwing crashes.

A failure tells the walk's story and the call of ``play`` that repeats it. ``WETLANDS_WALKS=n`` sets
the number of walks; ``.ci/run`` takes 20,000 each time.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable

import pytest

from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState, check_invariants

#: Walks of one run of a test; one or two milliseconds each.
WALKS = int(os.environ.get("WETLANDS_WALKS", "40"))
#: Events after which a walk that drains should have come to its end long ago.
MOST_STEPS = 2_000


class Job(st.Item):
    """An item, with what has become of it.

    Attributes:
        number: order of submission.
        by_value: a foreign worker refuses it.
        started: a worker has taken it; false again only if it gets another try.
        returned: it came back from a worker that had not started it.
        sent: how often it was dispatched.
        tried, tries_given: how often its worker died, and how often it may be tried again.
        to_kill: its worker is to be killed.
        to_cancel: it was asked to stop: it is not tried again.
        end: how it ended, None before.
    """

    __slots__ = (
        "by_value",
        "end",
        "number",
        "returned",
        "sent",
        "started",
        "to_cancel",
        "to_kill",
        "tried",
        "tries_given",
    )

    def __init__(self, number: int, by_value: bool, priority: int = 0, tries: int = 0) -> None:
        super().__init__()
        self.priority = priority
        self.retries_left = self.tries_given = tries
        self.tried = 0
        self.to_kill = False
        self.to_cancel = False
        self.number = number
        self.by_value = by_value
        self.started = False
        self.returned = False
        self.sent = 0
        self.end: str | None = None

    def __repr__(self) -> str:
        return f"job {self.number}" + (f" (priority {self.priority})" if self.priority else "")


class Worker:
    """One fake process: what it was told, and what it really does.

    Attributes:
        phase: ``"starting"``, ``"ready"``, ``"stopping"`` or ``"killed"``, as the actions said.
        held: what the shell has given to it and has no outcome of.
        inbox, current, done: what it has not started; what runs; what has finished, its result
            still unread in the pipe.
        unheard: sent by the direct send, not yet told to the state.
        reclaim: a Reclaim has not been answered.
        given: items that it was given and kept.
        broken: its initializer has failed.
        doomed: it was killed for the sake of an item that ran in it.
        foreign: it cannot run code by value.
    """

    def __init__(self, number: int, foreign: bool) -> None:
        self.number = number
        self.foreign = foreign
        self.phase = "starting"
        self.held: dict[Job, None] = {}
        self.inbox: deque[Job] = deque()
        self.current: Job | None = None
        self.done: list[Job] = []
        self.unheard: list[Job] = []
        self.reclaim = False
        self.given = 0
        self.broken = False
        self.doomed = False

    @property
    def idle(self) -> bool:
        return self.phase == "ready" and not self.held and not self.reclaim and not self.unheard

    def work(self) -> None:
        """Do one step: finish what runs, or start the next."""
        if self.current is not None:
            self.done.append(self.current)
            self.current = None
        elif self.inbox:
            self.current = self.inbox.popleft()
            assert self.current.end is None, (
                f"{self.current} is started after its end ({self.current.end})"
            )
            assert not self.current.started, f"{self.current} is started a second time"
            self.current.started = True


class Shell:
    """The driver: performs actions, throws dice, checks."""

    def __init__(
        self,
        rng: random.Random,
        max_workers: int,
        credit: int,
        quota: int | None,
        *,
        prompt: bool = True,
        priorities: tuple[int, ...] = (0,),
        tries: tuple[int, ...] = (0,),
        log: list[str] | None = None,
    ) -> None:
        self.priorities = priorities
        self.tries = tries
        self.rng = rng
        self.max_workers = max_workers
        self.credit = credit
        self.quota = quota
        self.reclaims = credit > 1
        # a Reclaim is answered at once, as pool.py does it; else at some time later
        self.prompt = prompt
        self.log = log
        self.state = PoolState(
            max_workers,
            credit=credit,
            most_credit=4 * credit if credit > 1 else None,
            tasks_per_worker=quota,
        )
        self.jobs: list[Job] = []
        self.open: dict[Job, None] = {}
        self.waiting: dict[Job, None] = {}
        self.workers: dict[int, Worker] = {}
        self.names: set[int] = set()
        self.asked: dict[Job, int] = {}
        self.timers = 0
        self.reserved = 0
        self.killed_for: dict[int, Job] = {}
        self.failed_starts = 0
        self.draining = self.dropping = self.terminated = self.broken = self.closed = False
        self.dying: Worker | None = None
        self.lost_now = 0
        self.dispatched_now: list[Job] = []
        self.open_workers = []

    # --- performing

    def feed(self, event: st.Event, refill_only: set[int] | None = None) -> None:
        """Tell the state, do what it says, tell it the answers, as ``Pool._feed`` does.

        Args:
            event: what happened.
            refill_only: no thread was woken for this event, which is allowed only if all it leads
                to is more for these workers, which have enough to do until they are heard of again.
        """
        queue = deque([event])
        while queue:
            event = queue.popleft()
            self.dispatched_now = []
            if isinstance(event, st.ItemsFinished):
                for job in event.items:
                    self.workers[event.worker].held.pop(job, None)
            elif isinstance(event, (st.Reclaimed, st.WorkerExited)):
                for job in event.items if isinstance(event, st.Reclaimed) else event.unstarted:
                    job.returned = True
                    self.waiting[job] = None
            actions = self.state.handle(event)
            assert refill_only is None or all(
                isinstance(action, st.Dispatch) and action.worker in refill_only
                for action in actions
            ), f"can_act said that no thread has to be woken, but this had to be done: {actions}"
            if self.log is not None:
                self.log.append(f"{event}\n" + "".join(f"    -> {action}\n" for action in actions))
            for action in actions:
                answer = self._PERFORM[type(action)](self, action)
                if answer is not None:
                    queue.append(answer)
            check_invariants(self.state)
            self._check_order()
        self._check_priorities()
        self._check_no_item_is_forgotten()

    def _start(self, action: st.StartWorker) -> None:
        assert len(self.workers) < self._most(), "more processes than max_workers"
        assert 0 <= action.index < self._most()
        assert action.worker not in self.names, "a worker's number is used twice"
        assert not self.terminated
        assert not self.broken
        self.names.add(action.worker)
        self.workers[action.worker] = Worker(action.worker, foreign=self.rng.random() < 0.2)

    def _most(self) -> int:
        """Return how many processes there may be."""
        return self.max_workers

    def _may_stop(self, worker: Worker) -> bool:
        """Return True if there is a reason to stop a worker that has nothing to do."""
        return self.draining or self.broken or worker.given == self.quota

    def _dispatch(self, action: st.Dispatch) -> st.Event | None:
        worker = self.workers[action.worker]
        assert worker.phase == "ready", f"dispatch to a worker that is {worker.phase}"
        assert not worker.reclaim, "dispatch to a worker that is being reclaimed"
        assert action.items, "an empty dispatch"
        refused = []
        for job in action.items:
            assert job in self.waiting, f"{job} is dispatched and does not wait"
            assert not job.started, f"{job} is dispatched again after it had started"
            del self.waiting[job]
            job.sent += 1
            self.dispatched_now.append(job)
            worker.held[job] = None
            worker.given += 1
            if worker.foreign and job.by_value:
                self._end(job, "refused")
                refused.append(job)
            else:
                worker.inbox.append(job)
        assert len(worker.held) - len(worker.unheard) <= self.state.most_credit, (
            "more items than the credit"
        )
        assert self.quota is None or worker.given <= self.quota, "more items than the quota"
        fresh = [(-job.priority, job.number) for job in action.items if not job.returned]
        assert fresh == sorted(fresh), "not in the order of priority and submission"
        return st.ItemsFinished(action.worker, refused) if refused else None

    def _reclaim(self, action: st.Reclaim) -> st.Event | None:
        worker = self.workers[action.worker]
        assert self.reclaims, "reclaim where nothing can be reclaimed"
        assert not worker.reclaim, "a second reclaim before the answer to the first"
        self._absorb(worker, quietly=True)
        worker.reclaim = True
        self.open_workers = [other for other in self.open_workers if other is not worker]
        return self._answer_reclaim(worker) if self.prompt else None

    def _answer_reclaim(self, worker: Worker) -> st.Reclaimed:
        worker.reclaim = False
        items = self._take_back(worker)
        return st.Reclaimed(worker.number, items)

    def _take_back(self, worker: Worker) -> list[Job]:
        items = list(worker.inbox)
        worker.inbox.clear()
        for job in items:
            del worker.held[job]
            worker.given -= 1
        return items

    def _send_cancel(self, action: st.SendCancel) -> None:
        worker = self.workers[action.worker]
        assert action.item in worker.held, (
            f"a cancel request for {action.item} goes to a worker that does not have it"
        )
        assert action.item.started or not self.reclaims, (
            f"{action.item} had not started and could have been cancelled"
        )

    def _stop(self, action: st.StopWorker) -> None:
        worker = self.workers[action.worker]
        assert worker.phase == "ready"
        # What the state has not heard of yet is still served: the frame is in the inbox before its
        # end is.
        assert all(job in worker.unheard for job in worker.held), (
            "a worker is stopped while it has something to do"
        )
        assert self._may_stop(worker), "a worker is stopped for no reason"
        worker.phase = "stopping"

    def _kill(self, action: st.KillWorker) -> None:
        worker = self.workers[action.worker]
        assert worker.phase != "killed", "killed twice"
        assert (
            worker.doomed
            or self.terminated
            or (worker.phase == "starting" and (self.draining or self.broken))
        ), "killed for no reason"
        worker.phase = "killed"

    def _kill_if_running(self, action: st.KillIfRunning) -> st.Event:
        worker = self.workers[action.worker]
        assert action.item in worker.held
        assert not worker.inbox or not self.reclaims, "something could start before the kill"
        running = action.item is worker.current if self.reclaims else True
        worker.doomed = worker.doomed or running
        return st.KillAnswered(action.worker, action.item, running)

    def _cancelled(self, action: st.Cancelled) -> None:
        assert action.items, "nothing is cancelled"
        for job in action.items:
            assert self.dropping or job in self.asked or self.closed or job.to_kill, (
                f"{job} is cancelled without being asked to"
            )
            self._end_waiting(job, "cancelled")

    def _cancel_answered(self, action: st.CancelAnswered) -> None:
        assert action.item in self.asked or action.item.to_kill, (
            f"an answer about {action.item} that no thread waits for"
        )
        self.asked.pop(action.item, None)
        if action.done:
            assert action.item.end in ("cancelled", "failed") or not action.item.started
            self.promised.append(action.item)
        else:
            assert action.item.started or action.item.end is not None or not self.reclaims, (
                f"{action.item} could have been cancelled"
            )

    promised: list[Job]

    def _lost(self, action: st.Lost) -> None:
        worker = self.dying
        assert worker is not None, "an item is lost and no worker died"
        assert action.worker == worker.number
        self.lost_now += 1
        if self.reclaims:
            assert action.item is worker.current, f"{action.item} is lost and had not started"
            assert self.lost_now == 1, "one death, two lost items"
        if worker.phase == "killed" and not self.terminated and not self.broken:
            assert action.item.to_kill, (
                f"{action.item} is lost because another one was to be killed"
            )
        assert (
            action.item.tried == action.item.tries_given
            or self.dropping
            or action.item.to_kill
            or action.item.to_cancel
        ), "it had another try"
        del worker.held[action.item]
        self._end(action.item, "lost")

    def _retried(self, action: st.Retried) -> None:
        worker, job = self.dying, action.item
        assert worker is not None
        assert action.worker == worker.number
        assert job is worker.current or not self.reclaims
        assert job.tried < job.tries_given, "tried too often"
        assert not job.to_cancel, "tried again although it was asked to stop"
        assert not self.dropping, "tried again although everything is to end"
        del worker.held[job]
        job.tried += 1
        job.started, job.returned = False, True
        self.lost_now += 1
        self.waiting[job] = None

    def _start_failed(self, action: st.StartFailed) -> None:
        assert self.dying is not None
        assert action.worker == self.dying.number
        others = any(worker.phase in ("ready", "starting") for worker in self.workers.values())
        assert not (others and action.items), "others could do it"
        for job in action.items:
            self._end_waiting(job, "failed")

    def _broken(self, action: st.Broken) -> None:
        assert self.broken
        for job in action.items:
            self._end_waiting(job, "failed")

    def _end_waiting(self, job: Job, how: str) -> None:
        assert not job.started, f"{job} is {how} and had started"
        assert job in self.waiting, f"{job} is {how} and does not wait"
        del self.waiting[job]
        self._end(job, how)

    def _end(self, job: Job, how: str) -> None:
        assert job.end is None, f"{job} is {how} and was {job.end} before"
        job.end = how
        del self.open[job]

    def _set_timer(self, action: st.SetRestartTimer) -> None:
        assert action.delay > 0
        assert not self.timers, "two restart timers at a time"
        self.timers += 1

    def _closed(self, action: st.PoolClosed) -> None:
        assert not self.closed, "closed twice"
        assert self.draining or self.broken
        assert not self.workers, "closed before the last process was gone"
        assert not self.open, f"closed while {list(self.open)} had no end"
        assert not self.reserved, "closed while an item was still to come"
        self.closed = True

    _PERFORM: dict[type, Callable[..., st.Event | None]] = {
        st.StartWorker: _start,
        st.Dispatch: _dispatch,
        st.Reclaim: _reclaim,
        st.SendCancel: _send_cancel,
        st.StopWorker: _stop,
        st.KillWorker: _kill,
        st.KillIfRunning: _kill_if_running,
        st.Cancelled: _cancelled,
        st.CancelAnswered: _cancel_answered,
        st.Lost: _lost,
        st.Retried: _retried,
        st.StartFailed: _start_failed,
        st.Broken: _broken,
        st.SetRestartTimer: _set_timer,
        st.PoolClosed: _closed,
    }

    # --- what has to be true after every event

    def _check_order(self) -> None:
        """The urgent first; first come, first served, among those that were never given back.

        And what was given back goes first.
        """
        fresh = [job for job in self.dispatched_now if not job.returned]
        if not fresh:
            return
        last = max(fresh, key=lambda job: (-job.priority, job.number))
        for job in self.waiting:
            assert job.priority <= last.priority, f"{last} is dispatched before {job}"
            if job.priority == last.priority:
                assert not job.returned, (
                    f"new items are dispatched while {job}, which came back, waits"
                )
                assert job.number > last.number, f"{last} is dispatched before {job}"

    def _check_priorities(self) -> None:
        """What waits, waits for nothing of another priority that a worker holds without having
        started it.
        """
        priorities = {job.priority for job in self.waiting}
        for worker in self.workers.values():
            if (
                self.waiting
                and self.reclaims
                and not (worker.reclaim or worker.done or worker.unheard)
            ):
                behind = list(worker.inbox)[worker.current is None :]
                for job in behind:
                    assert priorities == {job.priority}, (
                        f"{job} was given out ahead while priorities {priorities} wait"
                    )

    def _check_no_item_is_forgotten(self) -> None:
        idle = [worker.number for worker in self.workers.values() if worker.idle]
        if self.waiting:
            assert not idle, f"workers {idle} are idle while {list(self.waiting)} wait"
            assert self.workers or self.timers, f"{list(self.waiting)} wait and no worker will come"
            starting = sum(worker.phase == "starting" for worker in self.workers.values())
            full = len(self.workers) == self.max_workers
            assert full or self.failed_starts or starting >= len(self.waiting), (
                "too few workers are started"
            )
            assert not self.broken, "items wait in a broken pool"
            assert not self.terminated, "items wait in a pool that was terminated"
        elif (
            idle
            and self.reclaims
            and not any(
                worker.done or worker.reclaim or worker.unheard for worker in self.workers.values()
            )
        ):
            for worker in self.workers.values():
                behind = len(worker.inbox) - (worker.current is None)
                assert behind < 1, (
                    f"{list(worker.inbox)} queue up at worker {worker.number} while {idle} are idle"
                )
        if self.prompt:
            assert not self.asked, "a request to cancel was not answered"

    # --- what may happen

    def submit(self, count: int) -> None:
        for worker in list(self.workers.values()):
            self._absorb(worker)
        jobs = []
        for _ in range(count):
            by_value = self.rng.random() < 0.2
            job = Job(
                len(self.jobs),
                by_value,
                priority=self.rng.choice(self.priorities),
                tries=self.rng.choice(self.tries),
            )
            self.jobs.append(job)
            jobs.append(job)
            self.open[job] = None
            self.waiting[job] = None
        needed = self.state.can_act or any(job.priority for job in jobs)
        before = len(self.log) if self.log is not None else 0
        if count == 1 and not needed:
            credit = {number: slot.credit for number, slot in self.state.slots.by_worker.items()}
            busy = {
                worker.number
                for worker in self.workers.values()
                if worker.held and len(worker.held) * 2 >= credit[worker.number]
            }
            self.feed(st.Submitted(jobs), refill_only=busy)
            if self.log is not None:
                self.log.insert(before, f"{jobs} posted without a wake-up\n")
        else:
            self.feed(st.Submitted(jobs))

    def publish(self) -> None:
        """Say which workers are idle, as the I/O thread does before it sleeps.

        Until the next time, the submitting threads believe it.
        """
        self.open_workers = []
        if (
            self.reclaims
            and self.quota is None
            and not (self.waiting or self.draining or self.broken)
        ):
            self.open_workers = [worker for worker in self.workers.values() if worker.idle]

    open_workers: list[Worker]

    def send_directly(self) -> None:
        """Write one frame from the submitting thread to a worker that was idle a moment ago.

        The state hears of it later.
        """
        open_workers = [
            worker
            for worker in self.open_workers
            if worker.phase == "ready" and not worker.doomed and not worker.unheard
        ]
        if open_workers:
            worker = self.rng.choice(open_workers)
            job = Job(len(self.jobs), by_value=False)
            job.sent = 1
            self.jobs.append(job)
            self.open[job] = None
            worker.held[job] = None
            worker.given += 1
            worker.inbox.append(job)
            worker.unheard.append(job)
            if self.log is not None:
                self.log.append(f"{job} is sent directly to worker {worker.number}\n")

    def _absorb(self, worker: Worker, quietly: bool = False) -> None:
        unheard, worker.unheard = worker.unheard, []
        for job in unheard:
            event = st.SentDirectly(worker.number, job)
            if quietly:  # between two actions of another event, as Pool._reclaim does it
                assert not self.state.handle(event)
            else:
                self.feed(event)

    def ready(self, worker: Worker) -> None:
        if worker.phase == "starting":
            worker.phase = "ready"
        self.feed(st.WorkerReady(worker.number))

    def read(self, worker: Worker) -> None:
        """Read results: some or all of those in the pipe, in their order."""
        count = self.rng.randint(1, len(worker.done))
        self._read(worker, count)

    def _read(self, worker: Worker, count: int) -> None:
        self._absorb(worker)
        done, worker.done = worker.done[:count], worker.done[count:]
        for job in done:
            assert job in worker.held
            self._end(job, "finished")
        self.feed(st.ItemsFinished(worker.number, done))

    def exit(self, worker: Worker, final: bool = False) -> None:
        """The process is gone.

        Its results are read, then what it has not started, then the state is told.
        """
        if worker.done:
            self._read(worker, len(worker.done))
        self._absorb(worker)
        if worker.phase == "starting" or (worker.phase == "ready" and worker.current is None):
            self.failed_starts += 1
        unstarted = self._take_back(worker) if self.reclaims else []
        del self.workers[worker.number]
        self.open_workers = [other for other in self.open_workers if other is not worker]
        self.dying, self.lost_now = worker, 0
        self.feed(st.WorkerExited(worker.number, unstarted, final))
        assert not worker.held, f"{list(worker.held)} died with their worker unreported"
        self.dying = None

    def initializer_failed(self, worker: Worker) -> None:
        worker.broken = self.broken = self.draining = self.dropping = True
        self.feed(st.InitializerFailed(worker.number))

    def cancel(self, job: Job) -> None:
        for worker in list(self.workers.values()):
            self._absorb(worker)
        self.asked[job] = self.asked.get(job, 0) + 1
        self.promised = []
        could = job.end is None and not job.started and (self.reclaims or job in self.waiting)
        job.to_cancel = True
        self.feed(st.CancelRequested(job))
        if self.prompt:
            assert (job in self.promised) == could
            assert not could or job.end in ("cancelled", "failed")

    def kill(self, job: Job) -> None:
        """End the worker that runs the job, to be rid of the job or to run it again.

        The job is cancelled if it waits.
        """
        for worker in list(self.workers.values()):
            self._absorb(worker)
        self.promised = []
        job.to_kill = True
        waits = job in self.waiting
        if waits:
            self.asked[job] = self.asked.get(job, 0) + 1
        retry = self.rng.random() < 0.3
        could = not job.started and self.reclaims and not retry
        running = [worker for worker in self.workers.values() if worker.current is job]
        self.feed(st.KillRequested(job, retry))
        if waits or (could and self.prompt):
            assert job.end in ("cancelled", "failed")
        elif self.prompt and self.reclaims:
            assert all(worker.phase == "killed" for worker in running), "it is not killed"

    def reserve(self) -> None:
        self.reserved += 1
        self.feed(st.Reserved())

    def release(self) -> None:
        if self.rng.random() < 0.7:
            self.submit(1)
        self.reserved -= 1
        self.feed(st.Released())

    def shutdown(self, cancel: bool) -> None:
        for worker in list(self.workers.values()):
            self._absorb(worker)
        self.draining = True
        self.dropping = self.dropping or cancel
        self.feed(st.ShutdownRequested(cancel))
        if cancel:
            left = [job for job in self.open if job in self.waiting]
            if self.prompt and self.reclaims:
                left += [
                    job
                    for worker in self.workers.values()
                    for job in worker.inbox
                    if worker.phase != "killed"
                ]
            assert not left, f"{left} were not dropped"

    def terminate(self) -> None:
        for worker in list(self.workers.values()):
            self._absorb(worker)
        self.draining = self.dropping = self.terminated = True
        self.feed(st.TerminateRequested())

    def restart_due(self) -> None:
        self.timers -= 1
        self.feed(st.RestartDue())

    # --- the dice

    def possible(self) -> list[tuple[str, Callable[[], None]]]:
        """Return what could happen now, by name."""
        found: list[tuple[str, Callable[[], None]]] = []
        rng = self.rng
        if not self.closed or rng.random() < 0.3:
            found.append(("submit", lambda: self.submit(rng.choice((1, 1, 1, 2, 3, 7)))))
        if not self.closed:
            found.append(("submit many", lambda: self.submit(rng.choice((20, 70)))))
        found.append(("direct", self.send_directly))
        if self.open:
            found.append(("cancel", lambda: self.cancel(rng.choice(list(self.open)))))
        if self.jobs:
            found.append(("cancel any", lambda: self.cancel(rng.choice(self.jobs))))
        if self.open:
            found.append(("kill", lambda: self.kill(rng.choice(list(self.open)))))
            found.append(
                ("reclaim", lambda: self.feed(st.ReclaimRequested(rng.choice(list(self.open)))))
            )
        if not self.draining:
            found.append(("reserve", self.reserve))
        if self.reserved:
            found.append(("release", self.release))
        found.append(("launch", lambda: self.feed(st.LaunchRequested())))
        found.append(("shutdown", lambda: self.shutdown(False)))
        found.append(("shutdown and cancel", lambda: self.shutdown(True)))
        found.append(("terminate", self.terminate))
        if self.timers:
            found.append(("restart", self.restart_due))
        workers = list(self.workers.values())
        rng.shuffle(workers)
        for worker in workers:
            if worker.phase == "starting" and not worker.broken:
                found.append(("ready", lambda worker=worker: self.ready(worker)))
                found.append(("initializer", lambda worker=worker: self.initializer_failed(worker)))
                found.append(
                    (
                        "failed start",
                        lambda worker=worker: self.exit(worker, final=rng.random() < 0.2),
                    )
                )
            if worker.phase == "killed" and not worker.inbox and worker.current is None:
                found.append(
                    ("late ready", lambda worker=worker: self.feed(st.WorkerReady(worker.number)))
                )
            if worker.inbox or worker.current is not None:
                found.append(("work", worker.work))
            if worker.done:
                found.append(("read", lambda worker=worker: self.read(worker)))
            if worker.reclaim:
                found.append(
                    ("reclaimed", lambda worker=worker: self.feed(self._answer_reclaim(worker)))
                )
            if worker.phase == "ready":
                found.append(("crash", lambda worker=worker: self.exit(worker)))
            if (
                worker.phase == "killed"
                or worker.doomed
                or worker.broken
                or (worker.phase == "stopping" and not worker.held)
            ):
                found.append(("gone", lambda worker=worker: self.exit(worker)))
            elif worker.phase == "stopping":
                found.append(("crash", lambda worker=worker: self.exit(worker)))
        return found

    def walk(self, steps: int) -> None:
        """Take random steps; what is likely differs from walk to walk."""
        rng = self.rng
        weights = {name: rng.choice(choices) for name, choices in _WEIGHTS.items()}
        for _ in range(steps):
            if rng.random() < 0.6:
                self.publish()
            found = self.possible()
            likely = [weights[name] for name, _ in found]
            if any(likely):
                (chosen,) = rng.choices(found, likely)
                chosen[1]()

    def drain(self) -> None:
        """From here on nothing goes wrong any more: everything has to come to its end."""
        if not self.draining:
            self.shutdown(False)
        for _ in range(MOST_STEPS):
            if self.closed:
                break
            before = len(self.open), len(self.workers), self.timers, self.reserved, len(self.names)
            moved = [self._go_on(worker) for worker in list(self.workers.values())]
            if self.timers:
                self.restart_due()
            if self.reserved:
                self.release()
            after = len(self.open), len(self.workers), self.timers, self.reserved, len(self.names)
            assert any(moved) or before != after, (
                f"stuck: {list(self.open)} are open, {len(self.workers)} processes alive"
            )
        assert self.closed, "the pool does not come to its end"
        assert not self.asked, "a request to cancel was never answered"
        assert all(job.end is not None and job.place is None for job in self.jobs)
        self.submit(1)  # too late; the executor refuses it, but there is a race between both
        assert self.jobs[-1].end in ("cancelled", "failed")

    def _go_on(self, worker: Worker) -> bool:
        """Let a worker do what it should; False if there is nothing."""
        if self.workers.get(worker.number) is not worker:
            return True
        if worker.reclaim:
            self.feed(self._answer_reclaim(worker))
        elif worker.phase == "killed" or worker.doomed or worker.broken:
            self.exit(worker)
        elif worker.phase == "starting":
            self.ready(worker)
        elif worker.inbox or worker.current is not None or worker.done:
            for _ in range(self.rng.randrange(1, 20)):
                worker.work()
            if worker.done:
                self._read(worker, len(worker.done))
        elif worker.phase == "stopping":
            self.exit(worker)
        else:
            return False
        return True


#: Each walk draws its own weight for what may happen from these.
_WEIGHTS: dict[str, tuple[float, ...]] = {
    "submit": (3, 3, 10),
    "submit many": (0, 0, 0, 0.5),
    "direct": (0, 5),
    "cancel": (0, 1, 6),
    "cancel any": (0, 0.5),
    "kill": (0, 0, 1),
    "reclaim": (0, 0, 1),
    "reserve": (0, 0, 0.5),
    "release": (1,),
    "launch": (0, 0.3),
    "shutdown": (0, 0, 0.3),
    "shutdown and cancel": (0, 0, 0.3),
    "terminate": (0, 0, 0.3),
    "restart": (1, 5),
    "ready": (5, 2),
    "late ready": (0, 1),
    "initializer": (0, 0, 0, 0.3),
    "failed start": (0, 0, 0.5, 5),
    "work": (5, 10),
    "read": (5, 2),
    "reclaimed": (5, 1),
    "crash": (0, 0.3, 3),
    "gone": (5, 1),
}


def play(seed: int, log: list[str] | None = None, **given: object) -> None:
    """Take the walk of this seed."""
    rng = random.Random(seed)
    settings = {
        "max_workers": rng.randint(1, 4),
        "credit": rng.choice((1, 2, 3, 64)),
        "quota": rng.choice((None, None, 1, 2, 5)),
        "prompt": rng.random() < 0.7,
        "priorities": rng.choice(((0,), (0,), (0, 0, 1, -1, 5))),
        "tries": rng.choice(((0,), (0,), (0, 1, 3))),
    }
    settings.update(given)
    shell = Shell(rng, log=log, **settings)  # type: ignore[arg-type]
    if log is not None:
        log.append(f"{settings}\n")
    shell.walk(rng.choice((5, 10, 10, 20, 40)))
    shell.drain()


def walks(count: int, rng: random.Random, **given: object) -> None:
    """Take walks; a failing one is taken once more, for its story."""
    for _ in range(count):
        seed = rng.randrange(2**32)
        try:
            play(seed, **given)
        except Exception as error:
            log: list[str] = []
            with pytest.raises(type(error)):
                play(seed, log, **given)
            story = "".join(log[:1] + log[-60:])
            arguments = "".join(f", {key}={value}" for key, value in given.items())
            raise AssertionError(
                f"{type(error).__name__}: {error}\nplay({seed}{arguments}):\n{story}"
            ) from error


def test_walks_of_any_kind_keep_all_promises(stress_rng: random.Random) -> None:
    """Any number of workers, credit and quota; reclaims answered at once, or at some time."""
    walks(WALKS, stress_rng)


@pytest.mark.parametrize("max_workers", [1, 2, 3, 4])
@pytest.mark.parametrize("credit", [1, 64])
def test_walks_as_the_real_shell_takes_them(
    stress_rng: random.Random, credit: int, max_workers: int
) -> None:
    """Reclaims answered at once, with the credit of a system that can take items back, and of one
    that cannot.
    """
    walks(WALKS // 8, stress_rng, credit=credit, max_workers=max_workers, prompt=True)


@pytest.mark.parametrize("priorities", [(-1, 0), (-3, -2), (0, 1), (-2, -1, 0, 1, 2)], ids=str)
def test_walks_with_priorities(stress_rng: random.Random, priorities: tuple[int, ...]) -> None:
    """Reclaims answered at once, where items can be reclaimed."""
    walks(WALKS // 8, stress_rng, priorities=priorities, credit=64, prompt=True)


def test_a_worker_that_was_to_decide_about_starts_is_ended_by_a_shutdown() -> None:
    """What is submitted after that, by a thread that was faster than the shutdown, waited for ever.
    """
    play(343843603, credit=1, max_workers=3, prompt=True)


@pytest.mark.parametrize("seed", [1137147611, 3876093560])
def test_priorities_are_kept_after_an_answer_to_a_reclaim(seed: int) -> None:
    """The first asked again what had just been answered.

    The second left a higher item behind what ran, while a lower one waited.
    """
    play(seed)


def test_the_same_seed_takes_the_same_walk() -> None:
    """A failure can be repeated."""
    stories = []
    for _ in range(2):
        log: list[str] = []
        play(4, log)
        stories.append(log)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 5
