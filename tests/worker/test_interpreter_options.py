"""The options with which this interpreter was started reach the workers of its own environment, and
no others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from wetlands_executor import CondaEnvExecutor

def options():
    import sys
    names = ("optimize", "no_user_site", "ignore_environment", "isolated", "dont_write_bytecode",
             "bytes_warning", "dev_mode", "utf8_mode", "quiet", "debug", "no_site", "verbose",
             "safe_path")
    flags = {name: getattr(sys.flags, name, None) for name in names}
    return [flags, sys.warnoptions, sorted(sys._xoptions.items())]

def failing():
    assert __debug__
    raise ValueError("as expected")

if __name__ == "__main__":
    executor = CondaEnvExecutor(
        sys.argv[1] or None, max_workers=1, share_preload=sys.argv[2] == "share", preload=["json"])
    with executor:
        there = executor.submit(options).result()
        numbers = list(executor.map(abs, range(-50, 0)))
        error = executor.submit(failing).exception()
        size = len(executor.submit(bytes, 1000000).result())
    print(json.dumps([options(), there, sum(numbers), type(error).__name__, size]))
"""


def run(tmp_path: Path, flags: list[str], env: str = "", way: str = "") -> list[object]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, *flags, str(path), env, way], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "flags",
    [
        ["-O", "-W", "error::UserWarning", "-W", "default::DeprecationWarning", "-s", "-B"],
        ["-OO", "-bb", "-q"],
        ["-I", "-W", "error"],
        ["-E", "-b", "-d"],
        ["-X", "dev", "-X", "utf8"],
        ["-X", "utf8=0", "-X", "faulthandler", "-X", "tracemalloc=2"],
        pytest.param(
            ["-P"],
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 has it first"),
        ),
    ],
    ids=" ".join,
)
def test_workers_have_the_options_of_this_interpreter(tmp_path: Path, flags: list[str]) -> None:
    here, there, *rest = run(tmp_path, flags)
    assert there == here
    assert rest == [1275, "ValueError", 1000000]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked on Linux only")
def test_forked_workers_have_them_too(tmp_path: Path) -> None:
    here, there, *_ = run(tmp_path, ["-O", "-X", "dev"], way="share")
    assert there == here


def test_another_environment_has_its_own(tmp_path: Path) -> None:
    """The same interpreter, but named.

    What is right for one environment need not be for another.
    """
    _here, there, *_ = run(tmp_path, ["-O", "-bb", "-W", "error", "-X", "dev"], env=sys.executable)
    assert isinstance(there, list)
    assert not any(
        value
        for name, value in there[0].items()
        if name in ("optimize", "bytes_warning", "dev_mode")
    )
    assert there[1:] == [[], []]
