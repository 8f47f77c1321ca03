"""Where the source of a function is found, how it is known to be true, and what it costs."""

from __future__ import annotations

import ast
import code
import contextlib
import doctest
import functools
import importlib
import importlib.util
import linecache
import os
import py_compile
import runpy
import sys
import textwrap
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

from tests.portable import cases
from tests.portable.conftest import DEADLINE, Load, Run, python_of
from tests.support.interpreters import Interpreter
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.serialize import interpreter
from wetlands_executor.serialize.definitions import dumps
from wetlands_executor.worker import code_sources


def located(function: types.FunctionType) -> code_sources.Piece:
    return code_sources.locate(function.__code__, function.__globals__)


def text_of(function: types.FunctionType) -> str:
    unit = located(function).unit
    assert unit is not None
    return unit.text


# --- pytest's rewritten asserts


def check_in_worker(x: int) -> str:
    assert x == 1, f"x is {x}"
    return "checked"


def test_a_function_of_this_test_module(there: CondaEnvExecutor) -> None:
    """Its code was changed by pytest, which the worker's Python does not have.

    Its plain source travels.
    """
    local = functools.partial(check_in_worker, 1)

    def nested(x: int) -> list[str]:
        assert isinstance(x, int)
        return [check_in_worker(x) for _ in range(2)]

    assert "@pytest_ar" in nested.__code__.co_names, "pytest has not rewritten this module"
    assert there.submit(nested, 1).result(DEADLINE) == ["checked", "checked"]
    assert there.submit(lambda: local()).result(DEADLINE) == "checked"
    error = there.submit(lambda: check_in_worker(2)).exception(DEADLINE)
    assert type(error) is AssertionError
    assert error.args == ("x is 2",)


def test_the_edit_of_a_test_module_is_detected(load: Load) -> None:
    """A rewritten module whose file says something else by now."""
    hook = next(finder for finder in sys.meta_path if isinstance(finder, AssertionRewritingHook))
    module = load(
        "def same(x=1):\n    assert x\n    return x\ndef other(x=1):\n    assert x\n    return x\n",
        loader=hook,
    )
    assert "@pytest_ar" in module.same.__code__.co_names
    path = Path(module.__file__ or "")
    path.write_text(
        path.read_text().replace(
            "def other(x=1):\n    assert x", "def other(x=1):\n    assert not x"
        )
    )
    assert text_of(module.same) == "def same(x=1):\n    assert x\n    return x"
    with pytest.raises(code_sources.NoSource, match="edited"):
        located(module.other)


# --- which text


def test_only_the_statement_around_it_travels(load: Load) -> None:
    """With its decorators, and with whatever shares a line with it."""
    module = load(
        """
        import functools
        unused = "not this"
        @functools.wraps(
            print
        )
        def decorated():
            return 1
        class C:
            def method(self): return lambda: 2
        a = 1; f = lambda: 3; g = [
            lambda: 4,
        ]; h = lambda: 5
        if unused:
            def inner():
                return 6
        """.replace("\n        ", "\n")
    )
    assert text_of(module.decorated).startswith("@functools.wraps(\n")
    assert text_of(module.decorated).endswith("return 1")
    assert text_of(module.C.method).splitlines() == [
        "class C:",
        "    def method(self): return lambda: 2",
    ]
    assert text_of(module.C().method()) == text_of(module.C.method)
    assert (
        text_of(module.f)
        == text_of(module.g[0])
        == text_of(module.h)
        == "a = 1; f = lambda: 3; g = [\n    lambda: 4,\n]; h = lambda: 5"
    )
    assert text_of(module.inner).startswith("if unused:")


def test_lines_that_only_look_like_ends_of_lines(load: Load, there: CondaEnvExecutor) -> None:
    """Form feeds and separators of Unicode end no line of Python; a last newline may be missing."""
    module = load("x = 'a\x0cb\u2028c'\n\x0c\ndef f():\n    return 'd\x0ce\u2028f'")
    assert there.submit(module.f).result(DEADLINE) == "d\x0ce\u2028f"


def test_an_encoding_of_its_own(tmp_path: Path, load: Load, there: CondaEnvExecutor) -> None:
    """The file says latin-1."""
    path = tmp_path / "encoded.py"
    path.write_bytes("# -*- coding: latin-1 -*-\ndef f():\n    return 'äöü'\n".encode("latin-1"))
    spec = importlib.util.spec_from_file_location("encoded_only_here", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert there.submit(module.f).result(DEADLINE) == "äöü"


def test_a_module_in_an_archive(
    tmp_path: Path, there: CondaEnvExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loader has the source; a function within one of its functions goes by value."""
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("zipped_only_here.py", "def make(k):\n    return lambda x: x + k\n")
    monkeypatch.syspath_prepend(str(archive))
    import zipped_only_here  # type: ignore[import-not-found]

    try:
        assert there.submit(zipped_only_here.make(2), 40).result(DEADLINE) == 42
    finally:
        sys.modules.pop("zipped_only_here")
        sys.path_importer_cache.clear()


def test_bytecode_of_another_patch_release(load: Load) -> None:
    """What the cache holds runs, although this release would compile it a little differently.

    The cache says of which source it is.
    """
    module = load("def f(x=1):\n    return x + 1\n")
    path = Path(module.__file__ or "")
    cache = py_compile.compile(str(path))
    other = module.f.__code__.replace(
        co_stacksize=module.f.__code__.co_stacksize + 1,
        co_consts=(*module.f.__code__.co_consts, "more"),
    )
    import marshal

    head = Path(cache).read_bytes()[:16]
    whole = compile(path.read_text(), str(path), "exec")
    whole = whole.replace(
        co_consts=tuple(
            other if isinstance(each, types.CodeType) else each for each in whole.co_consts
        )
    )
    Path(cache).write_bytes(head + marshal.dumps(whole))
    module.f.__code__ = marshal.loads(marshal.dumps(other))
    assert text_of(module.f) == "def f(x=1):\n    return x + 1"
    Path(cache).unlink()
    module.f.__code__ = marshal.loads(marshal.dumps(other))
    with pytest.raises(code_sources.NoSource):
        located(module.f)


def test_functions_of_the_standard_library_are_named(there: CondaEnvExecutor) -> None:
    """The worker has its own; the host's would be compiled against another library."""

    @contextlib.contextmanager
    def opened():  # type: ignore[no-untyped-def]
        yield 5

    piece = located(opened)
    assert piece.unit is None
    assert piece.arguments == ("contextlib", ("contextmanager",), ("helper",), ("func",))


# --- prompts and notebooks


def test_a_prompt(run_host: Run) -> None:
    """Python 3.13 keeps what was typed; older ones say that they have not."""
    lines = """
        from wetlands_executor import CondaEnvExecutor
        import os
        def f(x):
            return x + 1

        class C:
            def get(self): return f(40)

        import math; g = lambda x: math.floor(x)
        ex = CondaEnvExecutor(os.environ["WORKER"], max_workers=1)
        with ex: one, two = ex.submit(f, 1), ex.submit(lambda: f(C().get()) + g(0.5))

        print("RESULT", one.exception() or two.result())

    """
    worker = str(python_of("3.9"))
    assert (
        "RESULT 42"
        in (done := run_host("3.13", "-q", "-i", text=textwrap.dedent(lines), WORKER=worker)).stdout
    ), done
    assert (
        "RESULT f cannot travel"
        in (done := run_host("3.12", "-q", "-i", text=textwrap.dedent(lines), WORKER=worker)).stdout
    ), done


def test_a_notebooks_cells(there: CondaEnvExecutor) -> None:
    """They are in ``linecache`` only, and a cell may be run again with another text.

    ``from __future__`` may come from an earlier cell.
    """
    import __future__

    space = {"__name__": "__main__"}
    for number, source in enumerate(
        ["def f(x: Missing): return x + 1", "def f(x): return x + 2\nh = lambda: f(0)"]
    ):
        name = f"/tmp/ipykernel_{os.getpid()}/{number}.py"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(
            compile(
                source, name, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True
            ),
            space,
        )
        assert there.submit(space["f"], 1).result(DEADLINE) == 2 + number  # type: ignore[arg-type]
    assert there.submit(space["h"]).result(DEADLINE) == 2  # type: ignore[arg-type]


IMPORTS = """\
import math, operator
def f(x):
    return math.floor(x)
class C:
    def get(self, math=" a "):
        return math.strip(), operator.add(1, 1), [operator.neg(i) for i in (1,)]
g = lambda x: (math.ceil(x), [lambda: math.trunc(x)][0]())
import json; h = lambda: json.dumps(1)
"""


def check_imports(there: CondaEnvExecutor, space: dict[str, object]) -> None:
    """Run what ``IMPORTS`` defines."""
    f, g, h, kind = (space[name] for name in ("f", "g", "h", "C"))
    assert there.submit(f, 1.5).result(DEADLINE) == 1  # type: ignore[arg-type]
    assert there.submit(g, 1.5).result(DEADLINE) == (2, 1)  # type: ignore[arg-type]
    assert there.submit(h).result(DEADLINE) == "1"  # type: ignore[arg-type]
    assert there.submit(lambda: kind().get()).result(DEADLINE) == ("a", 2, [-1])  # type: ignore[operator]


def remember(name: str, source: str) -> None:
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)


@pytest.mark.parametrize(
    "way",
    [
        "whole",
        "each statement",
        "two and two",
        "each at a prompt",
        "from the third on",
        "in a function",
    ],
)
def test_what_was_compiled_together(way: str, there: CondaEnvExecutor) -> None:
    """IPython and prompts compile each statement alone, Spyder the lines between two marks,
    ``%timeit`` a function around them.

    From Python 3.11 on, the code depends on which modules are imported by the same compilation.
    """
    name = f"<cells of {way}>"
    remember(name, IMPORTS)
    space: dict[str, object] = {"__name__": "__main__"}
    body = ast.parse(IMPORTS).body
    parts: list[tuple[list[ast.stmt], str]] = {
        "whole": [(body, "exec")],
        "each statement": [([node], "exec") for node in body],
        "two and two": [(body[i : i + 2], "exec") for i in range(0, len(body), 2)],
        "each at a prompt": [([node], "single") for node in body],
        "from the third on": [(body[:2], "exec"), (body[2:], "exec")],
        "in a function": [(body, "function")],
    }[way]
    for nodes, mode in parts:
        if mode == "function":
            tree = ast.parse("def inner(): pass")
            tree.body[0].body = [
                ast.parse("global math, operator, json, f, g, h, C").body[0],
                *nodes,
            ]  # type: ignore[attr-defined]
            exec(compile(ast.fix_missing_locations(tree), name, "exec", dont_inherit=True), space)
            space["inner"]()  # type: ignore[operator]
        else:
            tree = ast.Interactive(nodes) if mode == "single" else ast.Module(nodes, [])  # type: ignore[assignment]
            exec(compile(tree, name, mode, dont_inherit=True), space)
    check_imports(there, space)


def test_the_cells_of_an_editor(there: CondaEnvExecutor, tmp_path: Path) -> None:
    """Spyder compiles one cell of a file, in its place by empty lines before it, under the name of
    the file.
    """
    path = tmp_path / "cells.py"
    path.write_text("# %%\nimport operator\n# %%\n" + IMPORTS.replace("math, operator", "math"))
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile("\nimport operator\n", str(path), "exec", dont_inherit=True), space)
    exec(
        compile(
            "\n" * 3 + IMPORTS.replace("math, operator", "math"),
            str(path),
            "exec",
            dont_inherit=True,
        ),
        space,
    )
    check_imports(there, space)


def test_an_interactive_console(there: CondaEnvExecutor) -> None:
    """``code.interact`` keeps no source: it says so.

    One that keeps its inputs, as ``doctest`` does, is served.
    """
    console = code.InteractiveConsole({"__name__": "__main__"}, filename="<console of a test>")
    console.push("import math; f = lambda x: math.floor(x)")
    error = there.submit(console.locals["f"], 1.5).exception(DEADLINE)  # type: ignore[arg-type]
    assert "no source" in str(error)
    remember("<console of a test>", "import math; f = lambda x: math.floor(x)\n")
    assert there.submit(console.locals["f"], 1.5).result(DEADLINE) == 1  # type: ignore[arg-type]


def test_a_doctest(there: CondaEnvExecutor) -> None:
    """Each example is compiled alone, as at a prompt."""
    text = (
        ">>> import math\n>>> def f(x):\n...     return math.floor(x)\n>>> there.submit(f, "
        "1.5).result()\n1\n"
    )
    text += (
        ">>> import math; g = lambda x: math.ceil(x)\n>>> there.submit(lambda: "
        "g(1.5)).result()\n2\n"
    )
    test = doctest.DocTestParser().get_doctest(
        text, {"there": there, "__name__": "__main__"}, "a page", None, None
    )
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    runner.run(test, out=said.append)
    assert not said


def test_a_script_that_another_runs(there: CondaEnvExecutor, tmp_path: Path) -> None:
    """By ``runpy``, or by ``exec`` of its compiled text."""
    path = tmp_path / "run.py"
    path.write_text(IMPORTS)
    check_imports(there, runpy.run_path(str(path), run_name="__main__"))
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(path.read_text(), path, "exec", dont_inherit=True), space)
    check_imports(there, space)


def test_other_code_in_the_same_place(there: CondaEnvExecutor) -> None:
    """Whatever imports are tried, only the very code is taken."""
    space: dict[str, object] = {"__name__": "__main__"}
    for number, other in enumerate(
        [
            "math.floor(x, 1)",
            "math.ceil(x)",
            "math.floor(y)",
            "math.floor",
            "floor(x)",
            "operator.floor(x)",
        ]
    ):
        name = f"<other {number}>"
        exec(
            compile("def f(x):\n    return math.floor(x)\n", name, "exec", dont_inherit=True), space
        )
        remember(name, f"import math, operator\ndef f(x):\n    return {other}\n")
        assert "is not that of this function" in str(
            there.submit(space["f"], 1).exception(DEADLINE)
        )  # type: ignore[arg-type]
        remember(name, f"def f(x):\n    return {other}\n")
        assert "is not that of this function" in str(
            there.submit(space["f"], 1).exception(DEADLINE)
        )  # type: ignore[arg-type]


def test_ipython(there: CondaEnvExecutor, other: Interpreter) -> None:
    """A real shell: magics, several statements in a cell, a function that is defined again."""
    shell_module = pytest.importorskip("IPython.core.interactiveshell")
    quiet = importlib.import_module("traitlets.config").Config(
        {"HistoryManager": {"enabled": False}}
    )
    shell = shell_module.InteractiveShell.instance(config=quiet)
    shell.push({"there": there})
    shell.run_cell(
        "%time 1\nk = 5\ndef f(x):\n    return x + k\nclass C:\n    def get(self): return f(1)\n"
    )
    shell.run_cell("a = there.submit(f, 1).result(); b = there.submit(lambda: C().get()).result()")
    assert (shell.user_ns["a"], shell.user_ns["b"]) == (6, 6)
    shell_module.InteractiveShell.clear_instance()


# --- cost


def streams(make: Callable[[], tuple[object, object]], other: Interpreter) -> tuple[int, int]:
    """Return the bytes of a call as source, and as cloudpickle writes it."""
    call = make()
    return len(dumps(call, remote=interpreter.RemoteInterpreter(other.path))[0]), len(
        cloudpickle.dumps(call)
    )


def test_the_payload_is_of_the_order_of_cloudpickles(other: Interpreter) -> None:
    """One statement, not the file."""
    measured = {}
    for name, (_row, make) in cases.CASES.items():
        # cloudpickle alone cannot do what holds a lock, as cached properties do in some versions
        with contextlib.suppress(TypeError):
            measured[name] = streams(make, other)
    assert len(measured) > 60
    ours, theirs = (sum(size[i] for size in measured.values()) for i in (0, 1))
    assert ours < 1.5 * theirs
    for name, (source, bytecode) in measured.items():
        assert source < 2 * bytecode + 2000, (
            f"{name}: {source} bytes as source, {bytecode} as bytecode"
        )
    assert max(size[0] for size in measured.values()) < len(Path(cases.__file__).read_text())


def statements_compiled() -> int:
    """Return how many statements this worker has compiled."""
    return len(sys.modules["_wetlands_worker.code_portable"]._UNITS)


def test_a_statement_is_compiled_once(there: CondaEnvExecutor) -> None:
    """However often it comes."""
    count = lambda: statements_compiled()  # noqa: E731
    before = there.submit(count).result(DEADLINE)
    assert [there.submit(lambda x: x + 1, i).result(DEADLINE) for i in range(20)] == list(
        range(1, 21)
    )
    assert list(there.map(lambda x: x * 2, range(5))) == [0, 2, 4, 6, 8]
    assert there.submit(count).result(DEADLINE) - before <= 1, (
        "all of them stand in this test function"
    )


# --- details on the other side


def test_annotations_that_cannot_be_made_there(there: CondaEnvExecutor) -> None:
    """A class of a module that is not there, a form that is not there yet.

    Only a remark, its text remains.
    """
    from _pytest.config import Config

    def f() -> None: ...

    f.__annotations__ = {"a": Config, "b": int | None, "c": list[int], "d": int, "return": "Path"}
    found = there.submit(
        lambda: {key: str(value) for key, value in f.__annotations__.items()}
    ).result(DEADLINE)
    assert found["a"] == "Config"
    assert found["b"] in ("typing.Union[int, NoneType]", "int | None", "typing.Optional[int]")
    assert found["c"] in ("typing.List[int]", "list[int]")
    assert (found["d"], found["return"]) == ("<class 'int'>", "Path")


def test_generic_values_are_made_there(there: CondaEnvExecutor) -> None:
    """As values, not only as annotations."""
    from collections.abc import Callable, Iterator, Mapping

    given = (
        list[int],
        dict[str, tuple[int, ...]],
        Callable[[int], str],
        Callable[..., int],
        Iterator[str],
        Mapping[str, int],
        set[int],
    )
    spelled = lambda *kinds: [  # noqa: E731
        str(kind).replace("typing.", "").replace("collections.abc.", "").lower() for kind in kinds
    ]
    texts = there.submit(spelled, *given).result(DEADLINE)
    assert texts == [
        "list[int]", "dict[str, tuple[int, ...]]", "callable[[int], str]", "callable[..., int]",
        "iterator[str]", "mapping[str, int]", "set[int]"
    ]  # fmt: skip
    assert there.submit(
        lambda *kinds: [isinstance(None, kind) for kind in kinds], type(None), int
    ).result(DEADLINE) == [True, False]
    assert there.submit(lambda kind: kind(x=1).x, types.SimpleNamespace).result(DEADLINE) == 1


def test_tracebacks_show_the_source(there: CondaEnvExecutor, load: Load) -> None:
    """Of a file that the worker can read, and of one that it cannot."""
    module = load("def fail():\n    return 1 / 0  # here\n")
    error = there.submit(module.fail).exception(DEADLINE)
    assert "return 1 / 0  # here" in str(error.__cause__)  # type: ignore[union-attr]
    assert "file_of_only_here.py" in str(error.__cause__)  # type: ignore[union-attr]
