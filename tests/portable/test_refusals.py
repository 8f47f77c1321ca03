"""What cannot travel to another Python, and what the error says.

The function, both versions, the reason, the way out.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest

from tests.portable.conftest import DEADLINE, Load, Run, python_of
from tests.portable.pages import refusals_of_the_page
from tests.support.interpreters import Interpreter
from tests.worker import workload
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.serialize import interpreter
from wetlands_executor.serialize.unpickler import _ForeignUnpickler, decode
from wetlands_executor.worker import calls, code_portable

OURS = sys.version.split()[0]


def refused(executor: CondaEnvExecutor, function: Callable[..., object], *words: str) -> str:
    """Return the text of the PicklingError that a call ends with; it holds the words."""
    error = executor.submit(function).exception(DEADLINE)
    assert isinstance(error, pickle.PicklingError), error
    for word in (*words, OURS):
        assert word in str(error), f"{word!r} is not in: {error}"
    assert executor.submit(abs, -1).result(DEADLINE) == 1, "nothing else is harmed"
    return str(error)


# --- no source


def without_source(there: CondaEnvExecutor, other: Interpreter, load: Load) -> None:
    space: dict[str, object] = {"__name__": "__main__"}
    exec("def made_by_exec(): return 1", space)
    theirs = ".".join(map(str, other.version))
    refused(there, space["made_by_exec"], "made_by_exec", theirs, "no source", "file.py:function")  # type: ignore[arg-type]
    refused(there, eval("lambda: 1"), "<lambda>", theirs, "no source")
    refused(there, lambda: space["made_by_exec"], "made_by_exec", "no source")


def file_gone(there: CondaEnvExecutor, other: Interpreter, load: Load) -> None:
    module = load("def gone(): return 1\n")
    Path(module.__file__ or "").unlink()
    refused(there, module.gone, "gone", "cannot be read")


def edited(there: CondaEnvExecutor, other: Interpreter, load: Load) -> None:
    module = load(
        "STEP = 1\ndef before(x=1):\n    return x + STEP\ndef edited(x=1):\n    return "
        "x + STEP\ndef moved(x=1):\n    return x\n"
    )
    path = Path(module.__file__ or "")
    path.write_text(
        path.read_text().replace(
            "def edited(x=1):\n    return x + STEP",
            "def edited(x=1):\n    # one line more\n    return x - STEP",
        )
    )
    refused(there, module.edited, "edited", str(path), "the file was edited", "Reload")
    refused(there, module.moved, "moved", "the file was edited")
    assert there.submit(module.before).result(DEADLINE) == 2, (
        "what the edit has not touched is still what runs"
    )
    # What was verified once stays so, whatever becomes of the file.
    path.write_text("nothing = 0\n")
    assert there.submit(module.before, 5).result(DEADLINE) == 6
    refused(there, module.edited, "edited", "the file was edited")


def changed_by_a_tool(there: CondaEnvExecutor, other: Interpreter, load: Load) -> None:
    module = load("def traced(x=1):\n    return x + 1\n")
    module.traced.__code__ = module.traced.__code__.replace(co_consts=(None, 2))
    refused(there, module.traced, "traced", "a tool has changed the code")


def newer_syntax(there: CondaEnvExecutor, other: Interpreter, load: Load) -> None:
    if other.version >= (3, 10):
        pytest.skip("no Python older than 3.10 on this machine")
    module = load("def matches(x=1):\n    match x:\n        case 1:\n            return 'one'\n")
    refused(
        there,
        module.matches,
        "matches",
        ".".join(map(str, other.version)),
        "line 2",
        "use an environment whose Python is at least as new",
    )
    refused(there, lambda f=module.matches: f(), "matches")


def made_in_c(there: CondaEnvExecutor, other: Interpreter, load: Load) -> None:
    held = (each for each in ())
    error = there.submit(lambda: next(held)).exception(DEADLINE)
    assert isinstance(error, pickle.PicklingError), error
    assert "<lambda>" in str(error)
    assert "cannot pickle 'generator' object" in str(error)
    assert "bytecode" not in str(error), "a worker of this version could not have it either"


REFUSALS = {
    "made by `exec`, `eval`, `python -c` or an old prompt": without_source,
    "its source file is gone": file_gone,
    "its file was edited after it was imported": edited,
    "a tool has changed its code": changed_by_a_tool,
    "its syntax is newer than the worker's Python": newer_syntax,
    "it holds an object made in C that cannot be pickled": made_in_c,
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_travel_says_why(
    what: str, there: CondaEnvExecutor, other: Interpreter, load: Load
) -> None:
    REFUSALS[what](there, other, load)


def test_the_page_lists_what_is_refused() -> None:
    assert refusals_of_the_page() == set(REFUSALS)


def test_an_initializer_that_cannot_travel(other: Interpreter) -> None:
    """It is pickled when the executor is made, and that says why."""
    space: dict[str, Callable[[], None]] = {"__name__": "__main__"}  # type: ignore[dict-item]
    exec("def setup(): pass", space)
    with pytest.raises(pickle.PicklingError, match="setup cannot travel"):
        CondaEnvExecutor(str(other.path), max_workers=1, initializer=space["setup"])


def test_a_function_made_there_without_source(there: CondaEnvExecutor) -> None:
    """The same words on the way back."""

    def make() -> object:
        space: dict[str, object] = {}
        exec("def made_there(): return 1", space)
        return space["made_there"]

    error = there.submit(make).exception(DEADLINE)
    assert isinstance(error, pickle.PicklingError), error
    assert "made_there cannot travel" in str(error)
    assert OURS in str(error)


def test_code_given_on_the_command_line(run_host: Run) -> None:
    """``python -c`` keeps its source from Python 3.13 on."""
    worker = python_of("3.9")
    text = (
        "from wetlands_executor import CondaEnvExecutor\nimport sys\n"
        "if __name__ == '__main__':\n"
        f"    with CondaEnvExecutor({str(worker)!r}, max_workers=1) as ex:\n"
        "        task = ex.submit(lambda x: x + 1, 1)\n"
        "        print('RESULT', task.exception() or task.result())\n"
    )
    old = run_host("3.12", "-c", text)
    assert "RESULT <lambda> cannot travel from Python 3.12" in old.stdout, old
    new = run_host("3.13", "-c", text)
    assert "RESULT 2" in new.stdout, new


def test_an_annotation_that_cannot_travel(there: CondaEnvExecutor) -> None:
    """The error names it, and the function that has it."""
    space: dict[str, object] = {"__name__": "__main__"}
    exec("class Made:\n    def method(self): return 1\n", space)

    def annotated(x: object = None) -> None: ...

    annotated.__annotations__ = {"x": space["Made"], "y": int}
    text = refused(there, annotated, "the annotation of 'x' in", "annotated", "method", "no source")
    assert "'y'" not in text

    class Held(type(space["Made"])):  # type: ignore[misc]
        """Its classes hold what nothing can pickle."""

    annotated.__annotations__ = {"y": int, "x": Held("Other", (), {"frame": sys._getframe()})}
    error = there.submit(annotated).exception(DEADLINE)
    assert isinstance(error, pickle.PicklingError), error
    assert all(
        word in str(error)
        for word in ("the annotation of 'x' in", "annotated", "cannot pickle 'frame' object")
    ), error


# --- bytecode is refused


def streams() -> dict[str, bytes]:
    """Return pickles by which bytecode would come in."""
    code = (lambda: 1).__code__

    class Marshalled:
        def __reduce__(self) -> object:
            return marshal.loads, (marshal.dumps(code),)

    return {
        "by cloudpickle": cloudpickle.dumps(lambda: 1),
        "by marshal": pickle.dumps(Marshalled(), 5),
        "by the type itself": b"\x80\x04\x8c\x05types\x8c\x08CodeType\x93.",
        "by the type, in an old protocol": b"ctypes\nCodeType\n.",
    }


@pytest.mark.parametrize(
    "way", ["by cloudpickle", "by marshal", "by the type itself", "by the type, in an old protocol"]
)
def test_the_host_refuses_bytecode(way: str) -> None:
    """Of a worker of another magic number; from one of its own it takes it."""
    data = streams()[way]
    with pytest.raises(pickle.PicklingError, match="bytecode"):
        _ForeignUnpickler(io.BytesIO(data)).load()
    if way in ("by cloudpickle", "by marshal"):
        assert decode(data) is not None
        with pytest.raises(pickle.PicklingError, match="bytecode"):
            decode(data, foreign=True)


@pytest.mark.parametrize(
    "way", ["by cloudpickle", "by marshal", "by the type itself", "by the type, in an old protocol"]
)
def test_the_worker_refuses_bytecode(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, in the unpickler that is shipped."""
    monkeypatch.setattr(calls, "_foreign", "3.8.0")
    with pytest.raises(pickle.PicklingError, match="bytecode"):
        calls.loads_rich(streams()[way])


def test_a_remote_interpreter_that_was_taken_for_another(other: Interpreter) -> None:
    """Its interpreter could not be asked, and turns out to be of another version.

    What was pickled for this one is never sent to it.
    """
    with CondaEnvExecutor(str(other.path), max_workers=1) as executor:
        executor._pool.settings.remote._known = (interpreter.MAGIC, interpreter.VERSION)
        early = executor.submit(lambda: 1)
        error = early.exception(DEADLINE)
        assert isinstance(error, pickle.PicklingError)
        assert "was pickled as bytecode of Python" in str(error)
        assert executor.submit(lambda: 1).result(DEADLINE) == 1, (
            "by now the worker has said what it is"
        )
        executor._pool.settings.remote._known = (interpreter.MAGIC, interpreter.VERSION)
        # to an idle worker, by the submitting thread itself
        late = executor.submit(workload.echo, lambda: 1)
        assert isinstance(late.exception(DEADLINE), pickle.PicklingError)
        assert executor.submit(abs, -1).result(DEADLINE) == 1


# --- who is asked


def test_only_code_asks_for_the_other_version(other: Interpreter) -> None:
    """Importable functions and their arguments do not.

    And an interpreter is asked once for all pools.
    """
    interpreter._cache.clear()
    with CondaEnvExecutor(str(other.path), max_workers=1) as executor:
        executor.submit(abs, -1)
        executor.submit(workload.echo, [workload.Thing(1)], key={"x": b"y"})
        assert not interpreter._cache
        assert executor.submit(lambda: 1).result(DEADLINE) == 1
    assert len(interpreter._cache) <= 1
    known = interpreter.RemoteInterpreter(other.path)
    assert known.foreign
    assert known.version == ".".join(map(str, other.version))
    assert not interpreter.RemoteInterpreter(sys.executable).foreign
    assert not interpreter.RemoteInterpreter().foreign


def test_an_interpreter_that_cannot_be_asked(tmp_path: Path) -> None:
    """Gets source, which is right for any; that it cannot be started fails the call, not this."""
    assert interpreter.RemoteInterpreter(tmp_path / "missing").foreign
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert interpreter.RemoteInterpreter(broken).foreign


def test_the_types_that_are_refused_are_those_that_make_code() -> None:
    """And no others."""
    for module, name in (
        ("marshal", "loads"),
        ("types", "CodeType"),
        ("builtins", "code"),
        ("cloudpickle.cloudpickle", "_builtin_type"),
    ):
        with pytest.raises(pickle.PicklingError):
            code_portable.check_name(module, name)
    for module, name in (
        ("codeop", "compile_command"),
        ("builtins", "int"),
        ("of_a_user", "CodeType"),
        ("cloudpickle", "_make_function"),
    ):
        code_portable.check_name(module, name)
