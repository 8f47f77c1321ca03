"""What a callable is called elsewhere, and which bytes may be unpickled where.

No process; the worker's half is in ``tests/worker``.
"""

from __future__ import annotations

import collections
import copyreg
import datetime as dt
import decimal
import enum
import fractions
import functools
import importlib.util
import io
import json
import math
import os
import pathlib
import pickle
import random
import re
import sys
import threading
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.names import steady
from wetlands_executor.errors import ExecutionException, WorkerCrashed
from wetlands_executor.serialize import project, references, settings
from wetlands_executor.serialize.calls import encode
from wetlands_executor.serialize.definitions import define, define_by_value, dumps
from wetlands_executor.serialize.errors import decode_error
from wetlands_executor.serialize.restricted import trivial_value
from wetlands_executor.serialize.settings import current_settings
from wetlands_executor.serialize.unpickler import decode_arrays
from wetlands_executor.worker import calls, wire


def importable(x: int = 0) -> int:
    """A function of the project."""
    return x + 1


class Thing:
    """A class of the project."""

    def method(self) -> str:
        return "method"

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    class Inner:
        """A class within."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project folder; what is imported from it is forgotten again."""
    before = set(sys.modules)
    monkeypatch.setattr(project, "extra_roots", {})
    monkeypatch.setattr(settings, "_current", None)  # it knows the number of roots, not which
    yield tmp_path
    for name in set(sys.modules) - before:
        # imported when it was needed first; others know its objects by now
        if not name.startswith("wetlands_executor"):
            del sys.modules[name]


def load(path: Path, name: str) -> types.ModuleType:
    """Import a file under a name, as test runners and plug-in systems do, without ``sys.path``."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# --- by reference or by value


@pytest.mark.parametrize(
    "function",
    [os.path.join, json.dumps, math.sqrt, len, print, dict, collections.OrderedDict, pytest.approx],
)
def test_what_every_environment_may_have_goes_by_name(function: Any) -> None:
    """Standard library, builtins, installed packages.

    Found in the worker's own environment, whatever file that is.
    """
    reference = references.reference_to(function)
    assert reference is not None
    assert reference.file is None
    assert (reference.module, reference.qualname) == (
        function.__module__ or "builtins",
        function.__qualname__,
    )


def test_project_code_goes_by_name_with_its_file() -> None:
    """So that the worker can refuse a namesake."""
    for obj, qualname in (
        (importable, "importable"),
        (Thing, "Thing"),
        (Thing.method, "Thing.method"),
        (Thing.Inner, "Thing.Inner"),
    ):
        assert references.reference_to(obj) == references.Reference(
            __name__, qualname, os.path.abspath(__file__)
        )


def test_a_static_method_goes_by_name() -> None:
    """It is a function of the class."""
    reference = references.reference_to(Thing.static)
    assert reference is not None
    assert reference.qualname == "Thing.static"


def test_our_own_functions_go_by_name_without_a_file() -> None:
    """The worker has the shipped half under a private name."""
    from wetlands_executor.worker import scripts

    assert references.reference_to(scripts.run_script) == references.Reference(
        "wetlands_executor.worker.scripts", "run_script", None
    )


def test_what_cannot_be_imported_by_name_goes_by_value() -> None:
    """Lambdas, local functions, replaced and deleted names, the main module."""

    def local() -> None: ...

    replaced = types.FunctionType(importable.__code__, {}, "importable")
    replaced.__module__, replaced.__qualname__ = __name__, "importable"
    gone = types.FunctionType(importable.__code__, {}, "gone")
    gone.__module__, gone.__qualname__ = __name__, "gone"
    main = types.FunctionType(importable.__code__, {}, "main")
    main.__module__, main.__qualname__ = "__main__", "main"
    nowhere = types.FunctionType(importable.__code__, {}, "f")
    nowhere.__module__, nowhere.__qualname__ = "no_such_module_anywhere", "f"
    for obj in (local, lambda: 0, replaced, gone, main, nowhere):
        assert references.reference_to(obj) is None


@pytest.mark.parametrize(
    "obj",
    [Thing().method, Thing.of_class, functools.partial(importable, 1), Thing(), [].append],
    ids=steady,
)
def test_other_callables_have_no_name_of_their_own(obj: Any) -> None:
    """Bound methods, partials, objects with ``__call__``: they are pickled with the call."""
    assert define(obj) is None


def test_a_module_that_was_loaded_outside_sys_path(folder: Path) -> None:
    """Its folder is sent along, if importing the name from there finds this file.

    Else it goes by value.
    """
    (folder / "plugin_a.py").write_text("def f(): return 1\n")
    module = load(folder / "plugin_a.py", "plugin_a")
    assert references.reference_to(module.f) == references.Reference(
        "plugin_a", "f", str(folder / "plugin_a.py")
    )
    assert str(folder) in current_settings().content[0]
    other = load(folder / "plugin_a.py", "another_name_entirely")
    assert references.reference_to(other.f) is None


def test_a_package_that_was_loaded_outside_sys_path(folder: Path) -> None:
    """The folder above the package is what has to be found."""
    package = folder / "some_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("def g(): return 2\n")
    (package / "mod.py").write_text("def f(): return 1\n")
    load(package / "__init__.py", "some_pkg")
    assert project.project_root(sys.modules["some_pkg"], str(package / "__init__.py")) == str(
        folder
    )
    assert project.project_root(
        load(package / "mod.py", "some_pkg.mod"), str(package / "mod.py")
    ) == str(folder)


# --- project folders


def test_project_paths_are_the_entries_of_no_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, absolute, those that exist; never the standard library or site-packages."""
    (folder / "src").mkdir()
    site = folder / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys,
        "path",
        [
            "",
            "src",
            str(site),
            str(folder / "missing"),
            os.path.dirname(os.__file__),
            *sys.path[-1:],
        ],
    )
    found = project.project_paths()
    assert found[:2] == (str(folder), str(folder / "src"))
    assert not any("site-packages" in path or "missing" in path for path in found)
    assert os.path.dirname(os.__file__) not in found


def test_the_context_is_the_same_object_until_something_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call sends it only when it is new."""
    first = current_settings()
    assert current_settings() is first
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    second = current_settings()
    assert second.number != first.number
    assert str(folder) in second.content[0]
    sys.path.append("/no/such/folder")
    assert current_settings() is second, "a folder that does not exist changes nothing"


# --- targets


def test_targets(folder: Path) -> None:
    """A module's name, or a file's path with its content; split at the last colon."""
    file = folder / "a:b.py"
    file.write_text("x = 1\n")
    assert references.definition_of_target("pkg.mod:Class.method") == (
        "reference",
        "pkg.mod",
        "Class.method",
        None,
    )
    kind, path, digest, source, qualname = references.definition_of_target(f"{file}:f")
    assert (kind, path, source, qualname) == ("file", str(file), b"x = 1\n", "f")
    file.write_text("x = 2\n")
    assert references.definition_of_target(f"{file}:f")[2] != digest


@pytest.mark.parametrize(
    "target", ["", ":", "f", "mod:", ":f", "mod:f()", "mod:1x", "mod f:g", "mod:a..b"]
)
def test_malformed_targets(target: str) -> None:
    """The error says what one looks like."""
    with pytest.raises(ValueError, match="module.*file"):
        define(target)


def test_a_target_in_a_file_that_does_not_exist() -> None:
    """Said at once, with the full path."""
    with pytest.raises(FileNotFoundError, match=re.escape(os.path.abspath("nowhere/x.py"))):
        define("nowhere/x.py:f")


def test_an_edited_file_is_another_definition(folder: Path) -> None:
    """An unchanged one is the same."""
    file = folder / "edited.py"
    file.write_text("def f(): return 1\n")
    first = define(f"{file}:f")
    assert define(f"{file}:f") is first
    file.write_text("def f(): return 2\n")
    assert define(f"{file}:f") is not first


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (importable, f"{__name__}.importable"),
        (Thing.method, "Thing.method"),
        (Thing().method, "Thing.method"),
        (functools.partial(functools.partial(importable, 1)), f"{__name__}.importable"),
        (lambda: 0, "<lambda>"),
        (len, "len"),
        (math.sqrt, "math.sqrt"),
        ("pkg.mod:f", "pkg.mod:f"),
        (Thing(), "Thing"),
    ],
)
def test_names_for_messages(function: Any, name: str) -> None:
    """As the API page derives them."""
    assert references.display_name(function) == name


# --- calls


def test_scalars_take_the_short_way() -> None:
    """No class can be in them: any unpickler will do. A subclass of a scalar is no scalar."""

    class Int(int):
        pass

    assert encode(abs, (), {}).payload == b""
    assert encode(abs, (-1, "x", 2.0, None, True, 1j, b"y"), {}).flags & wire.NO_REFERENCES
    for args, kwargs in (((Int(1),), {}), (([Int(1)],), {}), ((1,), {"k": Int(1)})):
        assert not encode(abs, args, kwargs).flags & wire.NO_REFERENCES


def test_a_function_is_defined_once() -> None:
    """And known by its number from then on."""
    first = encode(importable, (1,), {})
    second = encode(importable, (2,), {})
    assert first.definition is second.definition is not None
    assert first.by_value is None


def test_by_value_is_marked_wherever_it_hides() -> None:
    """The pool must not send it to an interpreter with other bytecode."""

    class Local:
        pass

    def named() -> None: ...

    assert encode(lambda: 0, (), {}).by_value == "<lambda>"
    assert encode(importable, (named,), {}).by_value.endswith("named")
    assert encode(importable, ({"deep": [Local()]},), {}).by_value is not None
    assert encode(importable, (), {"key": (Local,)}).by_value is not None
    assert encode(functools.partial(lambda x: x, 1), (), {}).by_value is not None
    assert encode(importable, (importable, Thing, Thing(), Thing().method), {}).by_value is None
    assert define_by_value(lambda: 0).by_value == "<lambda>"
    assert define_by_value(lambda: 0).bytecode
    assert encode(importable, (Local,), {}).bytecode
    assert not encode(importable, (Thing,), {}).bytecode


def test_by_value_is_marked_in_a_global_of_a_function_by_value(folder: Path) -> None:
    """One that travels packed in its own bytes."""
    (folder / "holder.py").write_text(
        "def helper(): return 1\ntable = [helper]\ndef make():\n    return lambda: table\n"
    )
    module = load(folder / "holder.py", "a_module_under_another_name")
    assert encode(module.make(), (), {}).by_value is not None


def test_an_object_that_cannot_be_pickled_raises_its_own_error() -> None:
    """In the submitting thread; the executor puts it on the task."""

    class Stubborn:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    with pytest.raises(RuntimeError, match="not me"):
        encode(importable, (Stubborn(),), {})
    with pytest.raises(TypeError):
        encode(importable, (io.BufferedReader(io.BytesIO()).raw and (x for x in ()),), {})


# --- results


class Colour(enum.Enum):
    RED = 1


def _objects(rng: random.Random) -> Iterator[Any]:
    """Yield objects of every kind, nested at random.

    Many hold the byte 0x93 in their data, many do not.
    """
    classes: list[Any] = [
        Thing(), Thing, importable, len, Colour.RED, decimal.Decimal("1.5"),
        fractions.Fraction(1, 3), dt.date(2020, 1, 1),
        uuid.UUID(int=5), pathlib.PurePath("a"), collections.OrderedDict(a=1),
        collections.Counter("aab"), ValueError("x"),
        re.compile("a"), range(3), slice(1, 2), complex(1, 2), bytearray(b"x"),
        types.SimpleNamespace(a=1), NotImplemented, ...,
    ]  # fmt: skip
    plain: list[Any] = [
        0,
        -1,
        147,
        0x93,
        1 << 80,
        1.5,
        "text",
        "\x93",
        b"\x93",
        b"",
        None,
        True,
        (),
        [],
        {},
        frozenset(),
        set(),
        "é" * 70,
    ]
    for obj in classes + plain:
        yield obj
    for _ in range(300):
        obj: Any = rng.choice(classes if rng.random() < 0.5 else plain)
        for _ in range(rng.randrange(4)):
            other = rng.choice(plain)
            obj = rng.choice(
                ([obj, other], (other, obj), {"key": obj}, {1: other, 2: [obj]}, [[obj] * 3])
            )
        yield obj


class _Watcher(pickle.Unpickler):
    """Notes whether a stream names anything."""

    named = False

    def find_class(self, module: str, name: str) -> Any:
        self.named = True
        return super().find_class(module, name)


def test_a_trivial_payload_never_names_a_class(stress_rng: random.Random) -> None:
    """It may be unpickled on the I/O thread, where no user code may run."""
    trivial = 0
    for obj in _objects(stress_rng):
        data = calls.dumps_result(obj, True)
        watcher = _Watcher(io.BytesIO(data))
        watcher.load()
        if trivial_value(data) is not None:
            assert not watcher.named, f"{obj!r} names a class"
            trivial += 1
    assert trivial > 50, "hardly anything takes the short way"


def test_a_trivial_payload_never_names_a_class_by_its_registered_code() -> None:
    """``copyreg.add_extension``: two bytes instead of a name."""
    copyreg.add_extension(__name__, "Thing", 0x7A)
    try:
        data = pickle.dumps(Thing(), 5)
        assert pickle.loads(data) == Thing()
        assert trivial_value(data) is None
    finally:
        copyreg.remove_extension(__name__, "Thing", 0x7A)


def test_a_large_payload_is_not_trivial() -> None:
    """It would hold up the I/O thread. A few long values are copied in no time."""
    assert trivial_value(pickle.dumps(list(range(50_000)), 5)) is None
    assert trivial_value(pickle.dumps(b"x" * 300_000, 5)) is None
    assert trivial_value(pickle.dumps(b"\x93" * 100_000, 5)) is not None
    assert trivial_value(pickle.dumps({"a": "\x93\nr" * 20_000, "b": (1, b"r")}, 5)) is not None
    assert trivial_value(pickle.dumps([b"x" * 100_000, Thing()], 5)) is None


# --- errors


class OddInit(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class NoReduce(Exception):
    """Refuses to be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("never")


class RaisesInStr(Exception):
    """Its text is user code too."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def travelled(error: BaseException) -> BaseException:
    """Return the error as the host gets it."""
    try:
        raise error
    except BaseException as raised:
        return decode_error(calls.dumps_error(raised, True))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OSError(2, "no"),
        KeyboardInterrupt(),
        SystemExit(3),
        StopIteration(4),
    ],
)
def test_errors_keep_their_type_and_arguments(error: BaseException) -> None:
    """With the remote traceback as their cause."""
    found = travelled(error)
    assert type(found) is type(error)
    assert found.args == error.args
    assert type(found.__cause__).__name__ == "_RemoteTraceback"
    assert type(error).__name__ in str(found.__cause__)


def test_an_error_whose_init_wants_other_arguments_is_rebuilt_from_its_parts() -> None:
    """Class, args and attributes."""
    found = travelled(OddInit(5, detail="bad"))
    assert isinstance(found, OddInit)
    assert (found.code, found.detail, str(found)) == (5, "bad", "5: bad")


def test_an_error_that_cannot_be_rebuilt_says_what_it_was() -> None:
    """Type, message, lines."""
    LocalError = type(
        "LocalError",
        (Exception,),
        {"__reduce__": NoReduce.__reduce__, "__module__": "somewhere.else"},
    )
    error = LocalError("what happened")
    error.lock = threading.Lock()
    found = travelled(error)
    assert isinstance(found, ExecutionException)
    assert found.type_name == "somewhere.else.LocalError"
    assert found.exception == "what happened"
    assert any("what happened" in line for line in found.traceback)


def test_an_error_without_text() -> None:
    """Its ``__str__`` raises: the error still arrives."""
    found = travelled(RaisesInStr())
    assert isinstance(found, (RaisesInStr, ExecutionException))


def test_our_own_errors_travel() -> None:
    """With their attributes: a worker may have a pool of its own."""
    found = travelled(WorkerCrashed("died", -9, "SIGKILL", "last words"))
    assert isinstance(found, WorkerCrashed)
    assert (found.exit_code, found.signal_name, found.stderr) == (-9, "SIGKILL", "last words")


def test_arrays_of_numbers_are_pickled_as_ever():
    """The short way makes the same bytes; it does not take what it does not know."""
    np = pytest.importorskip("numpy")
    matrix = np.arange(6.0).reshape(2, 3)
    for value in (
        matrix,
        matrix.T,
        matrix[:, ::2],
        np.ones(3, complex),
        np.zeros(3, bool),
        np.array(5, "i2"),
        np.zeros((0, 3)),
        np.longdouble([1]),
    ):
        encoded = encode(importable, (value, 1, "x"), {})
        assert encoded.payload == dumps(((value, 1, "x"), None))[0]
        assert not encoded.flags & wire.NO_REFERENCES
    metadata = np.dtype("f8", metadata={"reader": fractions.Fraction})
    for value in (
        np.array([fractions.Fraction(1)]),
        np.zeros(2, [("a", "f8")]),
        np.zeros(2, metadata),
        np.ma.zeros(2),
    ):
        encoded = encode(importable, (value,), {})
        assert encoded.payload == dumps(((value,), {}))[0]


def test_what_is_decoded_without_user_code():
    np = pytest.importorskip("numpy")
    plain = [
        np.arange(3.0),
        np.float64(2),
        [np.zeros((2, 2), "F"), {"a": np.datetime64("2020-01-01")}],
        np.array(["x"]),
        np.zeros(2, [("a", "f8")]),
    ]
    for value in plain:
        found = decode_arrays(pickle.dumps(value, 5))
        assert found is not None
        assert repr(found[0]) == repr(value)
    one = fractions.Fraction(1)
    for value in (one, np.array([one]), [np.arange(3), fractions.Fraction], np.ma.zeros(2), print):
        assert decode_arrays(pickle.dumps(value, 5)) is None
    assert decode_arrays(b"no pickle") is None
    assert decode_arrays(pickle.dumps(np.zeros(9000), 5)) is not None
    assert decode_arrays(pickle.dumps(np.zeros(20_000), 5)) is None, (
        "the I/O thread copies nothing that is large"
    )
