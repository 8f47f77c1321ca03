"""The leak detector itself: each kind of leak is found, and what goes away in time is none."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from tests.support import leaks

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc, memfd or /dev/shm")

#: A process that ends when its standard input does.
WAITER = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]


def leaked(before: leaks.Snapshot) -> leaks.Leaks:
    """Look without waiting for what will not go away."""
    return leaks.since(before, grace=0.05, settle=0.0)


def test_nothing_is_found_where_nothing_was_left() -> None:
    before = leaks.Snapshot.take()
    subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
    with tempfile.NamedTemporaryFile(prefix=leaks.TEMP_PREFIX):
        pass
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert not leaked(before)


def test_a_running_process_is_found() -> None:
    before = leaks.Snapshot.take()
    with subprocess.Popen(WAITER, stdin=subprocess.PIPE) as process:
        found = leaked(before)
        assert found.pids == {process.pid}
        assert str(process.pid) in str(found)


@linux
def test_a_zombie_is_found_and_left_to_its_parent() -> None:
    before = leaks.Snapshot.take()
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    assert not leaks.wait_for_exit([process.pid], 10)
    assert leaked(before).pids == {process.pid}
    assert process.wait() == 0, "the detector must not reap"


@linux
def test_an_orphan_is_found_by_the_mark_of_the_session() -> None:
    before = leaks.Snapshot.take()
    # The shell ends at once and leaves the sleeping grandchild to init.
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    orphan = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    assert orphan not in leaks.descendants()
    found = leaked(before)
    assert found.pids == {orphan}
    found.kill()
    assert not leaks.wait_for_exit([orphan], 10)


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_is_found(daemon: bool) -> None:
    before = leaks.Snapshot.take()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=daemon)
    thread.start()
    try:
        assert leaked(before).threads == {thread}
    finally:
        stop.set()
        thread.join()


def test_a_thread_on_its_way_out_is_waited_for() -> None:
    before = leaks.Snapshot.take()
    threading.Timer(0.2, int).start()
    began = time.monotonic()
    assert not leaks.since(before, grace=30)
    assert time.monotonic() - began < 10


def test_a_process_on_its_way_out_is_waited_for() -> None:
    before = leaks.Snapshot.take()
    process = subprocess.Popen(WAITER, stdin=subprocess.PIPE)
    timer = threading.Timer(0.2, process.communicate)
    timer.start()
    assert not leaks.since(before, grace=30)


def test_a_descriptor_is_found() -> None:
    before = leaks.Snapshot.take()
    read, write = os.pipe()
    found = leaked(before)
    os.close(read)
    os.close(write)
    assert {number for number, _ in found.fds} == {read, write}
    assert not leaked(before)


@linux
def test_a_descriptor_that_took_the_place_of_another_is_found() -> None:
    read, write = os.pipe()
    before = leaks.Snapshot.take()
    os.dup2(os.open(os.devnull, os.O_RDONLY), read)
    found = leaked(before)
    for number, _ in found.fds | {(write, "")}:
        os.close(number)
    assert (read, os.devnull) in found.fds


@linux
def test_a_shared_memory_segment_is_found() -> None:
    before = leaks.Snapshot.take()
    segment = shared_memory.SharedMemory(create=True, size=4096)
    segment.close()
    try:
        assert leaked(before).shm == {segment.name.lstrip("/")}
    finally:
        segment.unlink()


@linux
@pytest.mark.parametrize("ours", [True, False])
def test_a_folder_of_joblib_is_found_if_its_process_is_ours(ours: bool) -> None:
    before = leaks.Snapshot.take()
    name = f"joblib_memmapping_folder_{os.getpid() if ours else 1}_{uuid.uuid4().hex}"
    folder = Path("/dev/shm", name)
    folder.mkdir()
    try:
        assert leaked(before).shm == ({name} if ours else set())
    finally:
        folder.rmdir()


@linux
def test_a_memfd_mapping_is_found_after_its_descriptor_was_closed() -> None:
    before = leaks.Snapshot.take()
    fd = os.memfd_create("wetlands-test")
    os.ftruncate(fd, 4096)
    area = mmap.mmap(fd, 4096)
    os.close(fd)
    found = leaked(before)
    area.close()
    assert any("memfd:wetlands-test" in line for line in found.memfds)
    assert not leaked(before)


def test_a_temporary_file_is_found() -> None:
    before = leaks.Snapshot.take()
    fd, name = tempfile.mkstemp(prefix=leaks.TEMP_PREFIX)
    os.close(fd)
    found = leaked(before)
    os.remove(name)
    assert found.temps == {Path(name).name}


def test_garbage_is_collected_before_anything_is_called_a_leak() -> None:
    class Holder:
        def __init__(self) -> None:
            self.read, self.write = os.pipe()
            self.me = self

        def __del__(self) -> None:
            os.close(self.read)
            os.close(self.write)

    before = leaks.Snapshot.take()
    Holder()
    assert not leaked(before)


@pytest.mark.leaks_ok(
    "shows that the marker switches the check off; the descriptor is closed by a finalizer"
)
def test_the_marker_switches_the_check_off(request: pytest.FixtureRequest) -> None:
    read, write = os.pipe()
    os.close(write)
    request.config.add_cleanup(lambda: os.close(read))


def test_a_leaking_test_fails_in_a_session_of_its_own(tmp_path: Path) -> None:
    """The fixture as pytest runs it: one test leaks a descriptor, one does not."""
    (tmp_path / "test_inner.py").write_text(
        "import os\n\ndef test_leaks():\n    os.pipe()\n\ndef test_clean():\n    pass\n",
        encoding="utf-8",
    )
    conftest = Path(leaks.__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(conftest.parent.parent)!r})\nfrom tests.conftest "
        f"import *\n",
        encoding="utf-8",
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider",
            "-rE", str(tmp_path),
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "ERROR test_inner.py::test_leaks" in done.stdout
    assert "descriptor" in done.stdout
    assert "pipe:[" in done.stdout
