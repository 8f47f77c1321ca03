"""Tasks inside tasks in the pool's state: which workers count as busy for them.

By hand for the rules, and by random walks (``test_state_walk.py``) for the promises: whatever
waits for tasks inside it goes on in the end, and the number of processes is bounded.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.unit.test_state_walk import Job, Shell, Worker
from wetlands_executor.scheduling import messages as st
from wetlands_executor.scheduling.state import PoolState, check_invariants

WALKS = int(os.environ.get("WETLANDS_WALKS", "40"))
#: What a level of depth adds to the priority; see ``pool/nested.py``.
LEVEL = 1 << 40


class NestedJob(Job):
    """A job that may be inside another one, and may have further ones inside it."""

    def __init__(self, number: int, parent: NestedJob | None = None) -> None:
        super().__init__(number, by_value=False)
        self.depth = 0 if parent is None else parent.depth + 1
        self.priority = self.depth * LEVEL
        self.children: list[NestedJob] = []
        self.tries_given = 0
        if parent is not None:
            parent.children.append(self)

    @property
    def all_ended(self) -> bool:
        return all(child.end is not None for child in self.children)


class NestedWorker(Worker):
    """A worker whose job may wait for others."""

    def __init__(self, number: int) -> None:
        super().__init__(number, foreign=False)
        self.waits = False

    def work(self) -> None:
        if not self.waits:
            super().work()


class NestedShell(Shell):
    """A shell whose running jobs submit further ones and wait for them."""

    workers: dict[int, NestedWorker]  # type: ignore[assignment]

    def _most(self) -> int:
        deepest = max((job.depth for job in self.jobs), default=0)
        ending = sum(worker.phase in ("stopping", "killed") for worker in self.workers.values())
        return self.max_workers * (deepest + 2) + ending

    def _may_stop(self, worker: Worker) -> bool:
        return super()._may_stop(worker) or len(self.workers) > self.max_workers

    def _start(self, action: st.StartWorker) -> None:
        super()._start(action)
        self.workers[action.worker] = NestedWorker(action.worker)

    _PERFORM = {**Shell._PERFORM, st.StartWorker: _start}  # noqa: RUF012 - as in the base

    def _check_no_item_is_forgotten(self) -> None:
        if not self.waiting:
            return
        assert self.workers or self.timers, f"{list(self.waiting)} wait and no worker will come"
        depth = max(job.depth for job in self.waiting)
        busy = 0
        for worker in self.workers.values():
            if worker.reclaim or worker.done or worker.unheard or worker.phase == "starting":
                return  # something is under way that will be heard of
            waits = worker.waits and worker.current is not None
            if (worker.held or worker.phase != "ready") and not (
                waits and worker.current.depth < depth  # type: ignore[union-attr]
            ):
                busy += 1
        assert busy >= self.max_workers or self.failed_starts, (
            f"a job of depth {depth} waits although there is room: {busy} workers are busy"
        )

    def publish(self) -> None:
        super().publish()
        idle = {slot.worker for slot in self.state.slots.idle}
        self.open_workers = [worker for worker in self.open_workers if worker.number in idle]

    def submit(self, count: int) -> None:
        self._submit([NestedJob(len(self.jobs) + place) for place in range(count)])

    def send_directly(self) -> None:
        """Leave it out: what is sent directly has no depth, and its walks are elsewhere."""

    def _submit(self, jobs: list[NestedJob]) -> None:
        for job in jobs:
            self.jobs.append(job)
            self.open[job] = None
            self.waiting[job] = None
        self.feed(st.Submitted(jobs))

    def nest(self, worker: NestedWorker) -> None:
        """The job that runs submits others."""
        parent = worker.current
        assert isinstance(parent, NestedJob)
        first = len(self.jobs)
        self._submit(
            [NestedJob(first + place, parent) for place in range(self.rng.choice((1, 1, 2, 5)))]
        )

    def wait(self, worker: NestedWorker) -> None:
        """The job that runs begins to wait for those inside it."""
        worker.waits = True
        assert worker.current is not None
        self.feed(st.WaitBegan(worker.number, worker.current))

    def resume(self, worker: NestedWorker) -> None:
        worker.waits = False
        self.feed(st.WaitEnded(worker.number))

    def possible(self):  # type: ignore[no-untyped-def] # noqa: ANN201
        found = super().possible()
        for worker in self.workers.values():
            job = worker.current
            if worker.phase != "ready" or not isinstance(job, NestedJob):
                continue
            if worker.waits:
                if job.all_ended or self.rng.random() < 0.2:
                    found.append(("work", lambda worker=worker: self.resume(worker)))
            elif job.depth < 6:
                found.append(("submit", lambda worker=worker: self.nest(worker)))
                if not job.all_ended:
                    found.append(("submit", lambda worker=worker: self.wait(worker)))
        return found

    def _go_on(self, worker: Worker) -> bool:
        assert isinstance(worker, NestedWorker)
        job = worker.current
        if (
            self.workers.get(worker.number) is worker
            and worker.phase not in ("killed", "starting")
            and not (worker.reclaim or worker.doomed or worker.broken)
            and worker.waits
            and isinstance(job, NestedJob)
        ):
            if worker.done:
                self._read(worker, len(worker.done))
                return True
            if not job.all_ended:
                return False
            self.resume(worker)
            return True
        worker.waits = worker.waits and worker.current is not None
        return super()._go_on(worker)


def play(seed: int, log: list[str] | None = None) -> None:
    """Take the walk of this seed."""
    rng = random.Random(seed)
    shell = NestedShell(
        rng,
        rng.randint(1, 3),
        rng.choice((1, 3, 64)),
        rng.choice((None, None, 1, 3)),
        prompt=rng.random() < 0.7,
        log=log,
    )
    shell.walk(rng.choice((10, 30, 60)))
    shell.drain()


def test_walks_with_jobs_inside_jobs_come_to_their_end(stress_rng: random.Random) -> None:
    """Whatever crashes, is cancelled or killed: nothing waits for ever, nothing runs twice."""
    for _ in range(max(40, WALKS // 8)):
        seed = stress_rng.randrange(2**32)
        try:
            play(seed)
        except Exception as error:
            log: list[str] = []
            with pytest.raises(type(error)):
                play(seed, log)
            raise AssertionError(f"{error}\nplay({seed}):\n{''.join(log[-60:])}") from error


def feed(state: PoolState, *events: st.Event) -> list[st.Action]:
    actions: list[st.Action] = []
    queue = list(events)
    while queue:
        found = state.handle(queue.pop(0))
        check_invariants(state)
        for action in found:
            if isinstance(action, st.Reclaim):
                held = list(state.slots.by_worker[action.worker].held)
                queue.insert(0, st.Reclaimed(action.worker, held[1:]))
        actions += found
    return actions


def started(actions: list[st.Action]) -> list[int]:
    return [action.worker for action in actions if isinstance(action, st.StartWorker)]


def test_a_chain_of_a_hundred_has_one_worker_for_each_depth() -> None:
    """With one worker: each that waits makes room for what is inside it, and for nothing else."""
    state = PoolState(1)
    jobs = [NestedJob(0)]
    plain = NestedJob(1)
    assert started(feed(state, st.Submitted([jobs[0]]), st.WorkerReady(1))) == [1]
    for depth in range(1, 100):
        jobs.append(NestedJob(depth + 1, jobs[-1]))
        actions = feed(state, st.Submitted([jobs[-1]]), st.WaitBegan(depth, jobs[-2]))
        assert started(actions) == [depth + 1]
        feed(state, st.WorkerReady(depth + 1))
        assert jobs[-1].place is state.slots.by_worker[depth + 1]
    assert started(feed(state, st.Submitted([plain]))) == []
    for depth in range(99, 0, -1):
        feed(state, st.ItemsFinished(depth + 1, [jobs[depth]]), st.WaitEnded(depth))
        for worker, slot in list(state.slots.by_worker.items()):
            if slot.phase.value == "stopping":
                feed(state, st.WorkerExited(worker, ()))
    assert state.slots.unparked == 1
    assert len(state.slots.parked) == 1  # kept for the next
    feed(state, st.ItemsFinished(1, [jobs[0]]))
    assert plain.place is state.slots.by_worker[1]


def test_what_the_program_submits_gets_no_further_worker() -> None:
    """A worker that waits makes no room for what is not inside a task."""
    state = PoolState(1)
    parent, other = NestedJob(0), NestedJob(1)
    feed(state, st.Submitted([parent, other]), st.WorkerReady(1))
    assert started(feed(state, st.WaitBegan(1, parent))) == []
    child = NestedJob(2, parent)
    assert started(feed(state, st.Submitted([child]))) == [2]
    feed(state, st.WorkerReady(2))
    assert child.place is state.slots.by_worker[2]
    assert other.place is st.WAITING


def test_a_parked_worker_takes_the_next_task_inside_a_task() -> None:
    """It is kept: a task that waits a thousand times, one after another, starts one process."""
    state = PoolState(1)
    parent = NestedJob(0)
    feed(state, st.Submitted([parent]), st.WorkerReady(1))
    for number in range(1, 5):
        child = NestedJob(number, parent)
        actions = feed(state, st.Submitted([child]), st.WaitBegan(1, parent))
        assert started(actions) == ([2] if number == 1 else [])
        if number == 1:
            feed(state, st.WorkerReady(2))
        assert child.place is state.slots.by_worker[2]
        feed(state, st.ItemsFinished(2, [child]), st.WaitEnded(1))
        assert list(state.slots.parked) == [state.slots.by_worker[2]]


def test_many_that_wait_are_bounded_at_each_depth() -> None:
    """Thousand jobs that each have one inside: never more than twice the workers."""
    state = PoolState(2)
    parents = [NestedJob(number) for number in range(10)]
    feed(state, st.Submitted(parents), st.WorkerReady(1), st.WorkerReady(2))
    first = [slot.held for slot in state.slots.by_worker.values()]
    running = [next(iter(held)) for held in first]
    children = [NestedJob(20, running[0]), NestedJob(21, running[1])]  # type: ignore[arg-type]
    for worker, (parent, child) in enumerate(zip(running, children, strict=True), 1):
        feed(state, st.Submitted([child]), st.WaitBegan(worker, parent))
    assert len(state.slots.by_worker) == 4
    feed(state, st.WorkerReady(3), st.WorkerReady(4))
    assert all(child.place is not st.WAITING for child in children)


def test_a_task_is_not_given_to_the_worker_whose_job_has_submitted_it() -> None:
    """It would have to come back when that waits for it; else it is taken when that has ended."""
    state = PoolState(1)
    parent, first, second = NestedJob(0), NestedJob(1), NestedJob(2)
    first.depth = second.depth = 1
    first.priority = second.priority = LEVEL
    feed(state, st.Submitted([parent]), st.WorkerReady(1))
    assert feed(state, st.Submitted([first])) == []
    actions = feed(state, st.WaitBegan(1, parent), st.WorkerReady(2))
    assert not any(isinstance(action, st.Reclaim) for action in actions)
    assert first.place is state.slots.by_worker[2]
    feed(state, st.ItemsFinished(2, [first]), st.WaitEnded(1), st.Submitted([second]))
    assert second.place is st.WAITING
    feed(state, st.ItemsFinished(1, [parent]))
    assert second.place is state.slots.by_worker[1]
