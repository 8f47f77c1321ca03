"""joblib's ``Parallel`` over the backend of ``wetlands_executor.integrations.joblib``."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

joblib: Any = pytest.importorskip("joblib", reason="joblib is an extra")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

from tests.conftest import ROOT  # noqa: E402
from tests.contract.workload import arrive  # noqa: E402
from tests.integration.joblib_calls import (  # noqa: E402
    Refused,
    call_nested,
    describe,
    fail,
    kind_of_nested,
    mark,
    pid,
    place,
    power,
    refuse,
    where,
)
from tests.support.rendezvous import Rendezvous  # noqa: E402
from wetlands_executor import CondaEnvExecutor, InProcessExecutor, WorkerCrashed  # noqa: E402
from wetlands_executor.integrations import joblib as ours  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    ours.register()
    yield
    del joblib.parallel.BACKENDS["wetlands"]


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """The leak check comes after this."""
    yield
    ours.shutdown()


@pytest.fixture(scope="module")
def shared() -> Iterator[CondaEnvExecutor]:
    """One executor for the tests that are not about workers: they start once.

    Each of its threads and pipes is there before the first test.
    """
    with (
        CondaEnvExecutor(max_workers=2) as executor,
        parallel_config(backend="wetlands", executor=executor),
    ):
        executor.launch()
        np = pytest.importorskip("numpy")
        large = np.ones(200_000)
        for _ in executor.map(np.negative, [large] * 4):
            pass
        with pytest.raises(Refused):
            Parallel(batch_size=1)([delayed(refuse)(n) for n in (1, 2, 3)])
        list(executor.map(print, ["", ""]))
        yield executor


@pytest.fixture
def rendezvous() -> Iterator[Rendezvous]:
    with Rendezvous() as rendezvous:
        yield rendezvous


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another environment, without any package."""
    subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True
    )
    return tmp_path / "venv"


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
def test_results_come_in_order(
    shared: CondaEnvExecutor, return_as: str, batch_size: int | str
) -> None:
    with parallel_config(backend="wetlands", executor=shared):
        run = Parallel(return_as=return_as, batch_size=batch_size)
        assert list(run(delayed(power)(n, exponent=3) for n in range(50))) == [
            n**3 for n in range(50)
        ]


def test_results_come_as_they_are_ready(
    shared: CondaEnvExecutor, rendezvous: Rendezvous
) -> None:
    with parallel_config(backend="wetlands", executor=shared):
        calls = [delayed(arrive)(rendezvous.address, "slow"), delayed(power)(3)]
        found = Parallel(return_as="generator_unordered", batch_size=1)(calls)
        assert next(found) == 9
        rendezvous.open()
        list(found)


def test_lambdas_and_functions_of_a_function(shared: CondaEnvExecutor) -> None:
    offset = 5
    with parallel_config(backend="wetlands", executor=shared):
        assert Parallel()(delayed(lambda n: n + offset)(n) for n in range(3)) == [5, 6, 7]


def test_the_calls_run_in_the_environment_which_needs_nothing(other: Path) -> None:
    with parallel_config(backend="wetlands", env=other, n_jobs=2):
        assert set(Parallel()(delayed(where)(n) for n in range(4))) == {(str(other), False)}


@pytest.mark.parametrize("given", ["config", "Parallel", "both"])
def test_one_job_runs_in_the_environment_as_well(other: Path, given: str) -> None:
    """joblib would call it in this process, which is another environment."""
    inner = {"n_jobs": 1} if given != "config" else {}
    outer = {"n_jobs": 1} if given != "Parallel" else {}
    with parallel_config(backend="wetlands", env=other, **outer):
        assert {prefix for prefix, _ in Parallel(**inner)(delayed(where)(n) for n in range(4))} == {
            str(other)
        }


def test_one_job_of_this_environment_needs_no_worker() -> None:
    with parallel_config(backend="wetlands", n_jobs=1):
        assert Parallel()(delayed(pid)() for _ in range(2)) == [os.getpid()] * 2


def test_an_environment_given_to_parallel(other: Path) -> None:
    found = Parallel(n_jobs=2, backend="wetlands", env=other)(delayed(where)(n) for n in range(2))
    assert [prefix for prefix, _ in found] == [str(other)] * 2


def test_workers_are_kept_for_the_next_call_and_ended_by_shutdown() -> None:
    pids = []
    for _ in range(2):
        with parallel_config(backend="wetlands", n_jobs=2, inner_max_num_threads=1):
            pids.append(set(Parallel(batch_size=1)(delayed(pid)(n) for n in range(8))))
    assert len(pids[0] | pids[1]) <= 2
    assert os.getpid() not in pids[0]
    with parallel_config(backend="wetlands", n_jobs=2, inner_max_num_threads=2):
        others = set(Parallel(batch_size=1)(delayed(pid)(n) for n in range(8)))
    assert not others & (pids[0] | pids[1]), "other variables need other workers"
    ours.shutdown()
    with parallel_config(backend="wetlands", n_jobs=2, inner_max_num_threads=2):
        assert not others & set(Parallel()(delayed(pid)(n) for n in range(4)))


@pytest.mark.parametrize("inner", [None, 1, 3])
def test_threads_of_libraries_are_limited(
    inner: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    with parallel_config(
        backend="wetlands",
        n_jobs=2,
        inner_max_num_threads=inner,
        worker_env={"NUMEXPR_NUM_THREADS": "5"},
    ):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        found = Parallel()(delayed(os.getenv)(name) for name in names)
    one = str(inner or max(joblib.cpu_count() // 2, 1))
    assert found == [one, str(inner or 7), "5"]


# ------------------------------------------------------------------------------- errors, and aborts


def test_an_error_ends_the_call_and_not_the_backend(shared: CondaEnvExecutor) -> None:
    """Of a ``Parallel`` of its own: joblib 1.6 begins the next call of the same one with a batch
    of the aborted one, whatever the backend.
    """
    with parallel_config(backend="wetlands", executor=shared):
        with pytest.raises(Refused) as caught:
            Parallel(batch_size=1)(delayed(refuse)(n) for n in range(100))
        assert caught.value.args == (3,)
        assert "in refuse" in str(caught.value.__cause__)
        assert Parallel()(delayed(power)(n) for n in range(3)) == [0, 1, 4]


def test_an_aborted_call_leaves_others_of_the_same_backend_alone(rendezvous: Rendezvous) -> None:
    with CondaEnvExecutor(max_workers=3) as executor:
        with parallel_config(backend="wetlands", executor=executor):
            waiting = [delayed(arrive)(rendezvous.address, n) for n in range(2)]
            other = Parallel(return_as="generator", batch_size=1)(waiting)
            arrivals = [rendezvous.next() for _ in range(2)]
            with pytest.raises(Refused):
                Parallel(batch_size=1)(delayed(refuse)(n) for n in range(10))
            for arrival in arrivals:
                arrival.release()
            assert list(other) == [0, 1]


def test_an_error_cancels_what_waits_and_ends_what_runs(rendezvous: Rendezvous) -> None:
    """The call that waits for the test is interrupted: nothing lets it go on."""
    with parallel_config(backend="wetlands", n_jobs=2, cancel_grace=0.05):
        with pytest.raises(Refused):
            first = delayed(arrive)(rendezvous.address, "first")
            Parallel(batch_size=1)([first, delayed(refuse)(3), *[delayed(pid)()] * 20])
        assert len(Parallel(batch_size=1)(delayed(power)(n) for n in range(4))) == 4


def test_a_worker_that_dies_fails_the_call_and_is_replaced() -> None:
    with parallel_config(backend="wetlands", n_jobs=2), Parallel(batch_size=1) as run:
        with pytest.raises(WorkerCrashed, match="exit code 3"):
            run([delayed(os._exit)(3)])
        assert run(delayed(power)(n) for n in range(3)) == [0, 1, 4]


def test_what_cannot_be_pickled_fails_the_call(shared: CondaEnvExecutor) -> None:
    with (
        parallel_config(backend="wetlands", executor=shared),
        pytest.raises(TypeError, match="pickle"),
    ):
        Parallel()(delayed(power)(threading.Lock()) for _ in range(4))


def test_a_generator_that_raises(shared: CondaEnvExecutor) -> None:
    def calls() -> Iterator[Any]:
        for n in range(10):
            yield delayed(power)(n)
        raise Refused("no more")

    with (
        parallel_config(backend="wetlands", executor=shared),
        pytest.raises(Refused, match="no more"),
    ):
        Parallel()(calls())


def test_a_timeout_of_joblib(rendezvous: Rendezvous) -> None:
    with (
        parallel_config(backend="wetlands", n_jobs=2, cancel_grace=0.05),
        pytest.raises(multiprocessing.TimeoutError),
    ):
        Parallel(timeout=0.1)(delayed(arrive)(rendezvous.address, str(n)) for n in range(2))


def test_a_generator_that_is_dropped_cancels_the_rest(rendezvous: Rendezvous) -> None:
    with parallel_config(backend="wetlands", n_jobs=2, cancel_grace=0.05):
        calls = [delayed(power)(2), *[delayed(arrive)(rendezvous.address)] * 3]
        found = Parallel(return_as="generator", batch_size=1)(calls)
        assert next(found) == 4
        with pytest.warns(UserWarning, match="have been cancelled"):
            found.close()


def test_an_initializer_that_fails_does_not_spoil_the_next_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        with (
            parallel_config(backend="wetlands", n_jobs=2, initializer=fail),
            pytest.raises(BrokenProcessPool, match="initializer"),
        ):
            Parallel()(delayed(power)(n) for n in range(4))
    with parallel_config(backend="wetlands", n_jobs=2):
        assert Parallel()(delayed(power)(n) for n in range(3)) == [0, 1, 4]


def test_an_executor_that_was_shut_down() -> None:
    executor = CondaEnvExecutor(max_workers=2)
    executor.shutdown()
    with (
        parallel_config(backend="wetlands", executor=executor),
        pytest.raises(RuntimeError, match="after shutdown"),
    ):
        Parallel()(delayed(power)(n) for n in range(3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_workers": 3}, r"max_workers is n_jobs"),
        ({"executor": InProcessExecutor(1), "env": "x"}, "leave out env"),
        ({"executor": InProcessExecutor(1), "preload": ["os"]}, "leave out preload"),
        ({"executor": ThreadPoolExecutor(1)}, "no executor of this library"),
    ],
)
def test_arguments_that_cannot_be_meant(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        parallel_config(backend="wetlands", **given)


def test_no_jobs_at_all(shared: CondaEnvExecutor) -> None:
    with (
        parallel_config(backend="wetlands", executor=shared),
        pytest.raises(ValueError, match="n_jobs == 0"),
    ):
        Parallel(n_jobs=0)(delayed(power)(n) for n in range(3))


# ------------------------------------------------------------------------------- what joblib offers


@pytest.mark.parametrize(
    ("n_jobs", "count"), [(1, 1), (2, 2), (5, 2), (-1, 2), (-2, 1), (-9, 1), (None, 2)]
)
def test_the_number_of_jobs_is_that_of_the_executor_at_most(
    shared: CondaEnvExecutor, n_jobs: int | None, count: int
) -> None:
    with parallel_config(backend="wetlands", executor=shared, n_jobs=-1):
        assert joblib.effective_n_jobs(n_jobs) == count


def test_progress_is_printed(
    shared: CondaEnvExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    with parallel_config(backend="wetlands", executor=shared):
        Parallel(verbose=51)(delayed(power)(n) for n in range(10))
    assert "Using backend WetlandsBackend with 2 concurrent workers" in stream.getvalue()
    assert "10 out of  10 | elapsed" in stream.getvalue()


def test_short_calls_travel_in_batches() -> None:
    sizes: list[int] = []

    class Watched(ours.WetlandsBackend):
        def batch_completed(self, batch_size: int, duration: float) -> None:
            sizes.append(batch_size)
            super().batch_completed(batch_size, duration)

    with CondaEnvExecutor(max_workers=2) as executor:  # busy: it may start a second decoder thread
        run = Parallel(backend=Watched(executor=executor))
        found = run(delayed(power)(n) for n in range(3000))
    assert found == [n**2 for n in range(3000)]
    assert sum(sizes) == 3000
    assert max(sizes) > 16


def test_a_nested_parallel_uses_threads_of_its_worker(shared: CondaEnvExecutor) -> None:
    with parallel_config(backend="wetlands", executor=shared):
        for found in Parallel(batch_size=1)(delayed(kind_of_nested)(2) for _ in range(4)):
            assert [kind for kind, _ in found] == [
                "ThreadingBackend",
                "SequentialBackend",
                "SequentialBackend",
            ]
            assert len({number for _, number in found}) == 1


def test_a_nested_parallel_may_name_the_backend_but_no_other_environment(
    shared: CondaEnvExecutor,
) -> None:
    with parallel_config(backend="wetlands", executor=shared), Parallel(batch_size=1) as run:
        assert run(delayed(call_nested)() for _ in range(2)) == [[4, 9]] * 2
        with pytest.raises(RuntimeError, match=r"takes no env.*current_task\(\).executor"):
            run([delayed(call_nested)(env="other")])


def test_in_threads_of_this_process(shared: CondaEnvExecutor) -> None:
    def many(exponent: int) -> list[int]:
        with parallel_config(backend="wetlands", executor=shared):
            return list(Parallel()(delayed(power)(n, exponent) for n in range(20)))

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(many, range(4)))
    assert found == [[n**exponent for n in range(20)] for exponent in range(4)]


def test_an_executor_in_process() -> None:
    with (
        InProcessExecutor(2) as executor,
        parallel_config(backend="wetlands", executor=executor),
    ):
        assert Parallel()(delayed(pid)(n) for n in range(4)) == [os.getpid()] * 4


def test_joblib_is_named_where_it_is_missing() -> None:
    program = (
        "import sys; sys.modules['joblib'] = None\n"
        "import wetlands_executor.integrations.joblib\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "pip install 'wetlands-executor[joblib]'" in done.stderr


# --------------------------------------------------------------------------------------- large data


@pytest.mark.skipif(sys.platform != "linux", reason="arguments are shared on Linux")
def test_an_array_that_comes_again_is_shared_once(shared: CondaEnvExecutor) -> None:
    np = pytest.importorskip("numpy")
    large = np.ones(200_000)
    calls: list[Callable[[Any], Any]] = [
        lambda: delayed(place)(large),
        lambda: delayed(place)(array=large),
    ]
    with parallel_config(backend="wetlands", executor=shared):
        found = Parallel(batch_size=1)(calls[n % 2]() for n in range(10))
    assert len(set(found[1:])) == 1, "the first one travels as any argument"


@pytest.mark.parametrize(
    ("mode", "writable"), [("r", False), ("c", True), (None, True), ("r+", True), ("w+", True)]
)
def test_whether_arrays_can_be_written(
    shared: CondaEnvExecutor, mode: str | None, writable: bool
) -> None:
    np = pytest.importorskip("numpy")
    large, small = np.ones(200_000), np.ones(10)
    with parallel_config(backend="wetlands", executor=shared, mmap_mode=mode):
        found = Parallel(batch_size=1)(
            delayed(describe)(array) for array in [large, small] * 3
        )
    assert found == [("ndarray", writable, 200_000.0), ("ndarray", True, 10.0)] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="memory is not shared on Windows")
def test_workers_write_to_the_same_memory(shared: CondaEnvExecutor) -> None:
    np = pytest.importorskip("numpy")
    given = {"written": np.zeros(200_000)}
    with parallel_config(backend="wetlands", executor=shared, mmap_mode="r+"):
        found = Parallel(batch_size=1, pre_dispatch=1)(delayed(mark)(given, n) for n in range(6))
    assert max(found) == 6
    assert not given["written"].any(), "the caller's own is another one, as with joblib"


@pytest.mark.parametrize("limit", [None, "10M"])
def test_no_array_is_shared_below_the_limit(shared: CondaEnvExecutor, limit: Any) -> None:
    np = pytest.importorskip("numpy")
    large = np.ones(200_000)
    with parallel_config(backend="wetlands", executor=shared, max_nbytes=limit):
        found = Parallel(batch_size=1)(delayed(describe)(large) for _ in range(4))
    assert found == [("ndarray", True, 200_000.0)] * 4


@pytest.mark.parametrize("part", [slice(None), slice(5000, 9000)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("offset", [0, 64, 8192 + 64])
def test_a_mapped_file_is_mapped_there_too(
    shared: CondaEnvExecutor, tmp_path: Path, part: slice, order: str, offset: int
) -> None:
    np = pytest.importorskip("numpy")
    path = tmp_path / "data.bin"
    whole = np.memmap(path, "f8", "w+", offset, (20_000, 3), order)
    whole[:] = np.arange(60_000).reshape(20_000, 3)
    whole.flush()
    given = np.memmap(path, "f8", "r", offset, (20_000, 3), order)
    given = given[part] if order == "C" else given[:, 1:2][part if part == slice(None) else part]
    with parallel_config(backend="wetlands", executor=shared):
        found = Parallel(batch_size=1)(delayed(describe)(given) for _ in range(2))
    assert found == [("memmap", False, float(given.sum()))] * 2


def test_what_is_no_plain_part_of_a_mapped_file_travels(
    shared: CondaEnvExecutor, tmp_path: Path
) -> None:
    np = pytest.importorskip("numpy")
    given = np.memmap(tmp_path / "data.bin", "f8", "w+", 0, (100, 10))
    given[:] = 1
    copied = np.memmap(tmp_path / "data.bin", "f8", "c", 0, (100, 10))
    copied[:] = 2
    with parallel_config(backend="wetlands", executor=shared):
        arrays = [given[::2], given[:, 3], given + 1, copied]
        found = Parallel(batch_size=1)(delayed(describe)(array) for array in arrays)
    assert [total for _, _, total in found] == [500, 100, 2000, 2000]


def test_arrays_are_let_go_of_at_the_end(shared: CondaEnvExecutor) -> None:
    np = pytest.importorskip("numpy")
    import weakref

    large = np.ones(200_000)
    inputs = ours.SharedInputs(1000, "r")
    for _ in range(3):
        ((_, (array,), _),) = inputs.replace([(pid, (large,), {})])
    kept = weakref.ref(array)
    del array
    assert kept() is not None
    del large
    assert kept() is None, "the shared one ends with the caller's"


def test_no_warning_of_ours(shared: CondaEnvExecutor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with parallel_config(backend="wetlands", executor=shared):
            Parallel()(delayed(power)(n) for n in range(10))


@pytest.mark.heavy  # two minutes of joblib's own tests
@pytest.mark.timeout(600)
def test_the_suite_of_joblib() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.integration.joblib_suite"]
    command += ["-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull]
    command += ["-o", "addopts=", "-o", "filterwarnings="]
    command += ["--timeout", "60", "--pyargs", "joblib.test.test_parallel"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(last.split(" passed")[0].split()[-1].strip("= ")) > 200, last
