"""The bundle's compiled code: sent to an interpreter that is known to be like this one, checked
there, and never sent to another.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import DEADLINE
from wetlands_executor import CondaEnvExecutor, descriptors
from wetlands_executor.pool import bundle
from wetlands_executor.serialize import interpreter

ROOT = Path(__file__).resolve().parents[2]

#: Says whether the worker got code, and from where its functions come.
PROGRAM = """
import sys
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.pool import bundle

def look():
    runner = sys.modules["_wetlands_worker.runner"]
    import linecache
    lines = linecache.getlines(runner.Runner.loop.__code__.co_filename, runner.__dict__)
    return runner.Runner.loop.__code__.co_filename, bool(lines)

for share in (False, True):
    with CondaEnvExecutor(max_workers=1, preload=["json"], share_preload=share) as executor:
        print(executor.submit(abs, -2).result(), *executor.submit(look).result())
print(len(bundle.source()) < len(bundle.source(True)))
"""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was sent to workers as their bundle."""
    found: list[bytes] = []
    source = bundle.source

    def tap(compiled: bool = False) -> bytes:
        found.append(source(compiled))
        return found[-1]

    monkeypatch.setattr(bundle, "source", tap)
    return found


def code_of(data: bytes) -> bytes:
    """Return the second section of a bundle."""
    length = int.from_bytes(data[:8], "little")
    assert int.from_bytes(data[8 + length : 16 + length], "little") == len(data) - length - 16
    return data[16 + length :]


def run(cache: Path, **variables: str) -> list[str]:
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    environment.update(PYTHONPATH=str(ROOT), PYTHONPYCACHEPREFIX=str(cache), **variables)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_same_python_gets_code(tmp_path: Path) -> None:
    """From Python's own cache; it works like the source, and a traceback finds its lines."""
    for _ in range(2):  # the first time fills the cache
        own, shared, more = run(tmp_path)
        assert (own, shared) == (f"2 {ROOT}/wetlands_executor/worker/runner.py True",) * 2
        assert more == "True"


def test_without_a_cache_the_host_compiles(tmp_path: Path) -> None:
    """What every worker needs, and nothing is written; the lines of a traceback are found all the
    same.
    """
    own, shared, more = run(tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert (own, shared) == ("2 <wetlands_executor>/runner.py True",) * 2
    assert more == "True"
    assert not list(tmp_path.iterdir())


def test_an_outdated_cache_is_not_used(tmp_path: Path) -> None:
    """Python's own rule: the cached code is of a source of this time and size."""
    run(tmp_path)
    cached = next(tmp_path.rglob("wetlands_executor/worker/runner.*.pyc"))
    data = cached.read_bytes()
    cached.write_bytes(data[:8] + bytes(4) + data[12:16] + b"no code")
    for variables in ({"PYTHONDONTWRITEBYTECODE": "1"}, {}):
        own, shared, _more = run(tmp_path, **variables)
        assert own.startswith("2 ")
        assert shared.startswith("2 ")
    assert cached.read_bytes() == data


#: Prints which modules of the bundle a worker has before its first result, and which are compiled
#: for it without a cache.
WHAT_A_START_IMPORTS = """
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.pool import bundle

with CondaEnvExecutor(max_workers=1) as executor:
    names = executor.submit(eval, "[*__import__('sys').modules]").result()
    ours = {name[17:] for name in names if name.startswith("_wetlands_worker.")}
    print(sorted({"bootstrap", *ours} - {*bundle._FIRST}))
"""


def test_what_a_start_needs_is_compiled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHAT_A_START_IMPORTS],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


#: Prints how the bundle came, and which of its files a worker can still write to.
HOW_IT_CAME = """
import os
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.pool import spawn

def look():
    with open("/proc/self/maps") as maps:
        # Many kernels map it in no other way.
        mapped = any("wetlands-bundle" in line and " r--p " in line for line in maps)
    links = ["/proc/self/fd/" + fd for fd in os.listdir("/proc/self/fd")]
    links = [link for link in links if os.path.lexists(link) and "bundle" in os.readlink(link)]
    return mapped, [os.path.basename(link) for link in links]

if %r:
    def refuse(fd, data):
        raise OSError(27, "file too large")
    spawn._fill = refuse
for share in (False, True):
    for _ in range(2):
        with CondaEnvExecutor(max_workers=2, preload=["json"], share_preload=share) as executor:
            mapped, fds = executor.submit(look).result()
            print(mapped, *[executor.submit(attempt, int(fd)).result() for fd in fds])
"""

ATTEMPT = """
def attempt(fd):
    try:
        os.pwrite(fd, b"x", 0)
    except OSError as error:
        return error.errno
    return "written"
"""


@pytest.mark.skipif(not descriptors.MEMFD, reason="files in memory are missing here")
@pytest.mark.parametrize(("refused", "mapped"), [(False, "True"), (True, "False")])
def test_the_bundle_is_a_file_that_cannot_be_written_to(refused: bool, mapped: str) -> None:
    """And where it cannot be filled, it comes through the pipe."""
    program = HOW_IT_CAME.replace("\nif %r", ATTEMPT + "\nif %r") % refused
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [mapped] * 4, done.stderr
    assert "written" not in done.stdout


#: A script with the names that ``STAGE0`` uses; its functions go by value, and take its variables
#: with them.
NAMES = """
from wetlands_executor import CondaEnvExecutor

at = bootstrap = code = data = end = fds = find = first = length = magic = marshal = [1, 2]
mmap = name = size = sources = space = take = at
external = os = sys = {}

def use(number):
    import decimal, logging
    seen = [at, bootstrap, code, data, end, fds, find, first, length, magic, marshal]
    seen += [mmap, name, size, sources, space, take]
    print("seen")
    return number + sum(map(len, seen)) + len(external) + len(os) + len(sys)

if __name__ == "__main__":
    for share in (False, True):
        with CondaEnvExecutor(max_workers=1, preload=["json"], share_preload=share) as executor:
            assert executor.submit(use, 1).result() == 35
            assert list(executor.map(use, range(3))) == [34, 35, 36]
            assert list(executor.map(use, [0, True])) == [34, 35]
            assert list(executor.map(len, [bytes(200_000)] * 3)) == [200_000] * 3
    print("well")
"""


@pytest.mark.parametrize("cache", [True, False])
def test_a_script_may_use_any_name(tmp_path: Path, cache: bool) -> None:
    """What is imported late comes out of the bundle all the same."""
    script = tmp_path / "script.py"
    script.write_text(NAMES)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "" if cache else "1",
        "PYTHONPYCACHEPREFIX": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "well"


@pytest.mark.parametrize("share", [False, True])
def test_another_python_never_gets_code(python, sent: list[bytes], share: bool) -> None:
    """Neither its first worker, of which nothing is known, nor the ones after it, which are known
    to be different.
    """
    with CondaEnvExecutor(
        str(python.path),
        max_workers=1,
        max_tasks_per_child=1,
        preload=["json"],
        share_preload=share,
    ) as executor:
        for _ in range(3):
            assert (
                executor.submit("platform:python_version").result(DEADLINE).startswith(python.minor)
            )
    assert sent
    if python.minor == "{}.{}".format(*sys.version_info):
        return
    assert not any(code_of(data) for data in sent)


def test_code_for_another_python_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter was replaced by another version since it was looked at: it notices, and
    compiles the sources.
    """
    data = bundle.source()
    for blob in (b"cpython-00000000\0not marshalled", b"no separator", b"\0"):
        bad = data[: -len(code_of(data)) - 8] + len(blob).to_bytes(8, "little") + blob
        monkeypatch.setattr(bundle, "source", lambda compiled=False, bad=bad: bad)
        with CondaEnvExecutor(max_workers=1) as executor:
            assert executor.submit(abs, -2).result(DEADLINE) == 2


def test_magic_is_the_one_that_decides_for_functions() -> None:
    """One rule for what may travel as bytecode."""
    assert f"{sys.implementation.name}-{importlib.util.MAGIC_NUMBER.hex()}" == interpreter.MAGIC


def test_a_start_does_not_look_for_distributions(python) -> None:
    """Python 3.12 does that when finders are to look into their folders anew, and needs longer for
    it than for all the rest.
    """
    with CondaEnvExecutor(str(python.path), max_workers=1) as executor:
        assert not executor.submit(
            eval, "'importlib.metadata' in __import__('sys').modules"
        ).result(DEADLINE)
