"""Hosts that lack what most programs have: standard streams, a working folder, room on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import os, sys, tempfile
say = os.dup(int(os.environ["SAY"]))
while say < 3:
    say = os.dup(say)
how, forked = sys.argv[1:]
if how == "closed":
    os.closerange(0, 3)
elif how == "none":
    sys.stdin = sys.stdout = sys.stderr = None
elif how == "no folder":
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
def low():
    paths = {fd: f"/proc/self/fd/{fd}" for fd in range(3)}
    return {(fd, os.readlink(path)) for fd, path in paths.items() if os.path.exists(path)}
before = low()
from wetlands_executor import CondaEnvExecutor, WorkerCrashed, share
def talk(number):
    print("line", number)
    os.write(2, b"raw\\n")
    return number
options = {"share_preload": True, "preload": ["json"]} if forked == "forked" else {}
with CondaEnvExecutor(max_workers=2, **options) as executor:
    assert [executor.submit(talk, number).result(60) for number in range(5)] == list(range(5))
    new = low() - before
    ours = ("pipe", "memfd", "eventfd]", "socket")
    assert not any(what in name for _, name in new for what in ours), new
    for fd, _ in new:
        try:
            os.write(fd, b"what C code prints")
        except OSError:
            pass
    assert sorted(executor.map(pow, range(100), [2] * 100)) == [n ** 2 for n in range(100)]
    assert len(executor.submit(bytes, 5_000_000).result(60)) == 5_000_000
    assert executor.submit(len, share(b"x" * 1000, writable=True)).result(60) == 1000
    assert type(executor.submit(os._exit, 3).exception(60)) is WorkerCrashed
    assert executor.submit(pow, 2, 3).result(60) == 8
os.write(say, b"well")
"""


@pytest.mark.parametrize("forked", ["started", "forked"])
@pytest.mark.parametrize("how", ["closed", "closed by the shell", "none", "no folder"])
def test_host_without(how, forked, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    read, write = os.pipe()
    command = [sys.executable, str(program), how, forked]
    if how == "closed by the shell":
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SAY": str(write),
        "PYTHONFAULTHANDLER": "1",
    }
    with open(read, "rb") as said:
        done = subprocess.run(
            command,
            env=environment,
            pass_fds=[write],
            capture_output=True,
            timeout=120,
            cwd=tmp_path,
            check=False,
        )
        os.close(write)
        assert (done.returncode, said.read()) == (0, b"well"), done


FULL = """
import os
from wetlands_executor import CondaEnvExecutor, share
small, large = b"x" * 1000, b"x" * 50_000_000
found = [len(share(large))]
try:
    share(large, writable=True)
except (OSError, MemoryError) as error:
    found.append(type(error).__name__)
with CondaEnvExecutor(max_workers=1) as executor:
    found.append(executor.submit(len, share(small)).result(60))
    found.append(executor.submit(len, large).result(60))
    found.append(len(executor.submit(bytes, 5_000_000).result(60)))
    try:
        block = share(bytearray(small), writable=True)
        found.append(executor.submit(len, block).result(60))
    except (OSError, MemoryError) as error:
        found.append(type(error).__name__)
print(*found)
"""


@pytest.mark.parametrize("size", ["100k", "600k", "1m", "1200k"])
def test_full_disk_where_memory_is_files(size, tmp_path):
    """Workers and ``share`` use temporary files there: errors or copies, never a SIGBUS."""
    script = f'mount -t tmpfs -o size={size} none {tmp_path} && exec "$@"'
    inside = ["unshare", "-m", "sh", "-c", script, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WETLANDS_EXECUTOR_PLAIN": "1",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [*inside, sys.executable, "-c", FULL],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done
    whole, refused, shared, argument, result, written = done.stdout.split()
    assert (whole, shared, argument, result) == ("50000000", "1000", "50000000", "5000000")
    assert refused in ("MemoryError", "OSError")
    assert written in ("1000", "MemoryError", "OSError")


LIMITED = """
import resource, sys
name, limit = sys.argv[1], int(sys.argv[2])
from wetlands_executor import CondaEnvExecutor, share
resource.setrlimit(getattr(resource, name), (limit, limit))
found = []
data = b"x" * 1_000_000
for attempt in (lambda: len(share(data)), lambda: len(share(data, writable=True))):
    try:
        found.append(attempt())
    except (OSError, MemoryError) as error:
        found.append(type(error).__name__)
with CondaEnvExecutor(max_workers=1) as executor:
    found.append(executor.submit(len, b"x" * 5_000_000).result(60))
    found.append(len(executor.submit(bytes, 5_000_000).result(60)))
print(*found)
"""


@pytest.mark.parametrize("plain", ["0", "1"])
@pytest.mark.parametrize(
    ("name", "limit"),
    [("RLIMIT_FSIZE", 1 << 20), ("RLIMIT_FSIZE", 1 << 30), ("RLIMIT_AS", 1 << 30)],
)
def test_host_with_a_limit(name, limit, plain):
    """Of the size of files, of the address space: what cannot be shared is copied, or refused."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WETLANDS_EXECUTOR_PLAIN": plain}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, name, str(limit)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done
    shared, writable, argument, result = done.stdout.split()
    assert (shared, argument, result) == ("1000000", "5000000", "5000000")
    assert writable in ("1000000", "OSError", "MemoryError")
