"""``__main__`` in a worker stands for the host's.

``multiprocessing``, ``inspect`` and ``pickle`` find there what they look for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.interpreters import Interpreter
from tests.support.rendezvous import DEADLINE
from wetlands_executor import CondaEnvExecutor

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = '''
import collections, enum, inspect, multiprocessing, pickle, sys
from concurrent.futures import ProcessPoolExecutor


class Box:
    """A class of the script."""

    def __init__(self, value):
        self.value = value


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


def double(box):
    return Box(box.value * 2)


def put(queue, box):
    queue.put(Box(box.value * 2))


def pool(method):
    with multiprocessing.get_context(method).Pool(2) as inner:
        return [box.value for box in inner.map_async(double, [Box(1), Box(2)]).get(30)]


def executor(method):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as inner:
        return [box.value for box in inner.map(double, [Box(1), Box(2)])]


def process(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=put, args=(queue, Box(1)))
    child.start()
    value = queue.get(timeout=30).value
    child.join()
    return [value, 4]


def given(method, function):
    """The function of the pool is an argument: no global names it."""
    with multiprocessing.get_context(method).Pool(1) as inner:
        return inner.map_async(function, [-2, -4]).get(30)


def negate(value):
    return -value


def functions_of_modules(method):
    with multiprocessing.get_context(method).Pool(1) as inner:
        return inner.map_async(abs, [-2, -4]).get(30)


def source(*objects):
    return [inspect.getsource(each).partition("\\n")[0] for each in objects]


def dumped(*objects):
    return [pickle.loads(pickle.dumps(each)) is each for each in objects]


def argv():
    return sys.argv


if __name__ == "__main__":
    import os
    from wetlands_executor import CondaEnvExecutor
    env, calls = sys.argv[1], sys.argv[2:]
    with CondaEnvExecutor(env or None, max_workers=1) as ex:
        for call in calls:
            name, _, method = call.partition("-")
            if name == "source":
                found = ex.submit(source, Box, double).result(60)
                assert found == ["class Box:", "def double(box):"]
            elif name == "dumped":
                objects = Box, double, Colour, Point, dumped, Colour.RED, negate
                assert ex.submit(dumped, *objects).result(60) == [True] * len(objects)
                assert ex.submit(dumped, Box).result(60) == [True]
            elif name == "argv":
                assert ex.submit(argv).result(60) == sys.argv
            elif name == "given":
                assert ex.submit(given, method, negate).result(60) == [2, 4]
            else:
                assert ex.submit(globals()[name], method).result(60) == [2, 4], call
    print("holds")
'''
WAYS = ["pool", "executor", "process", "given"]


def run(*command: object, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=DEADLINE * 4, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "holds"), done.stderr


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "package" / "program.py"
    path.parent.mkdir()
    (path.parent / "__init__.py").touch()
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(
    "method", ["spawn", "forkserver", "fork"][: 1 if sys.platform == "win32" else 3]
)
def test_processes_of_a_task(script: Path, method: str) -> None:
    run(script, "", *(f"{way}-{method}" for way in WAYS), cwd=script.parent)


def test_a_program_that_is_a_module(script: Path) -> None:
    for calls in (["pool-spawn", "process-spawn", "given-spawn"], ["source", "dumped"]):
        run("-m", "package.program", "", *calls, cwd=script.parent.parent)


def test_source_pickle_and_arguments(script: Path) -> None:
    run(script.name, "", "source", "dumped", "argv", cwd=script.parent)


def test_in_every_version(script: Path, anypython: Interpreter) -> None:
    """That environment lacks nothing that the script imports at its top."""
    # A class of an older Python does not know its first line, by which 3.13 and newer go.
    source = (
        ["source"]
        if anypython.version[:2] < (3, 13) or anypython.version[:2] == sys.version_info[:2]
        else []
    )
    run(script, anypython.path, "pool-spawn", "process-spawn", cwd=script.parent)
    run(script, anypython.path, *source, "dumped", "argv", cwd=script.parent)


@pytest.mark.parametrize("change", ["unguarded", "lacking"])
def test_a_script_that_cannot_be_imported_is_not(
    script: Path, change: str, oldpython_or_none: Path | None
) -> None:
    """Without its guard it would do the host's work again.

    And an environment may lack what it imports.
    """
    env = ""
    if change == "unguarded":
        text = PROGRAM.replace('if __name__ == "__main__":', "if True:")
    else:
        if oldpython_or_none is None:
            pytest.skip("no other interpreter")
        env = str(oldpython_or_none)
        text = PROGRAM.replace("import collections", "import cloudpickle, collections")
    script.write_text(text)
    run(script, env, "functions_of_modules-spawn", cwd=script.parent)


@pytest.fixture
def oldpython_or_none(interpreters: tuple[Interpreter, ...]) -> Path | None:
    for each in interpreters:
        if Path(each.path).resolve() != Path(sys.executable).resolve():
            return Path(each.path)
    return None


def test_a_program_without_a_file(tmp_path: Path) -> None:
    """As in a child of ``ProcessPoolExecutor`` there is none then, and no script is run."""
    text = (
        "import sys\nfrom wetlands_executor import CondaEnvExecutor\n"
        "def look():\n    import __main__, sys\n    return hasattr(__main__, '__file__'), "
        "sys.argv\n"
        "with CondaEnvExecutor(max_workers=1) as ex:\n    assert ex.submit(look).result(60) == "
        "(False, ['-c', 'more'])\nprint('holds')"
    )
    run("-c", text, "more", cwd=tmp_path)


SCRIPT = """
import multiprocessing, sys


class Box:
    def __init__(self, value):
        self.value = value


def double(box):
    return Box(2 * box.value)


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert [box.value for box in pool.map_async(double, [Box(1)]).get(30)] == [2]
"""


def test_processes_of_a_script_that_is_a_task(single: CondaEnvExecutor, tmp_path: Path) -> None:
    """Also of a second one, which finds ``multiprocessing`` imported."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    for _ in range(2):
        single.submit_script(path).result(DEADLINE * 2)
    before = single.submit(
        eval, "__import__('sys').modules['__main__'] is __import__('sys').modules['__mp_main__']"
    )
    assert before.result(DEADLINE)


def test_what_an_error_says_of_a_missing_name(single: CondaEnvExecutor) -> None:
    with pytest.raises(AttributeError, match="__main__"):
        single.submit(eval, "__import__('__main__').nothing").result(DEADLINE)
