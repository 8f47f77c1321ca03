"""Code from another Python, the receiving half.

Compiles source to the code object that is meant, and makes values that this Python spells
differently.

Bytecode is valid for one implementation and magic number only. Between two that differ, a code
object travels as the source of the top-level statement in which it stands (``code_sources.py`` cuts
it out and verifies that it is the code that runs), and is compiled here. The statement keeps its
place in the file by empty lines before it, so that names, lines and private names are those of the
original; the code object that is meant is found by name, first line and free variables, and by its
place among the lambdas of that line.

Used on both sides: the host imports it as ``wetlands_executor.worker.code_portable``, the worker as
``_wetlands_worker.code_portable``. What is called by a pickle stream has to keep its name. Entered
by any thread that unpickles; the tables below only grow, by single operations.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from pickle import PicklingError

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

ONLY_AST = 0x400  # ast.PyCF_ONLY_AST
# ast.PyCF_ALLOW_TOP_LEVEL_AWAIT; notebooks have ``await`` outside functions
TOP_LEVEL_AWAIT = 0x2000
# Guards the trees of all units while a node is moved for a moment; only the compiler runs
# meanwhile.
_marking = allocate_lock()

#: (file name, first line, text, features) -> the compiled statement
_UNITS: Dict[Tuple[Any, ...], Unit] = {}
#: id of a code object -> the statement that it was compiled from here (which keeps the object and
#: so its id)
ORIGINS: Dict[int, Unit] = {}
#: Names under which too much else is compiled for lines to be kept for tracebacks.
_COMMON = (
    "<string>",
    "<stdin>",
    "<unknown>",
    "<>",
    "<timed exec>",
    "<timed eval>",
    "<magic-timeit>",
)


class Unit:
    """A top-level statement, compiled alone.

    Attributes:
        filename: of the module that it stands in; need not exist on this machine.
        text: its lines, whole.
        first: number of its first line.
        features: names of the optional ``__future__`` features that were in force.
        missing: global names that only annotations have, and that do not exist where it comes from.
            None: it comes from a Python that evaluates annotations when this one does.
    """

    __slots__ = (
        "_adapted",
        "_counts",
        "_flags",
        "_marks",
        "_tree",
        "codes",
        "features",
        "filename",
        "first",
        "last",
        "missing",
        "text",
    )

    def __init__(
        self,
        filename: str,
        first: int,
        text: str,
        features: Tuple[str, ...],
        missing: Optional[Tuple[str, ...]] = None,
    ) -> None:
        self.filename = filename
        self.first = first
        self.text = text
        self.last = first + text.count("\n")
        self.features = features
        self.missing = missing
        self._flags = flags_of(features)
        self._tree: Any = None
        self._counts: Optional[Dict[Tuple[str, int], int]] = None
        self._marks: Dict[Tuple[str, int, int], Any] = {}
        self._adapted: Dict[Tuple[Any, ...], Any] = {}
        source: Any = self._source() if missing is None else self._fresh()
        try:
            whole = compile_quietly(source, filename, self._flags)
        except SyntaxError:
            self._flags |= TOP_LEVEL_AWAIT
            whole = compile_quietly(source, filename, self._flags)
        self.codes = list(walk(whole))

    def _source(self) -> str:
        return "\n" * (self.first - 1) + self.text

    def _fresh(self) -> Any:
        """Return a tree of its own for the caller."""
        source = self._source()
        tree = compile_quietly(source, self.filename, self._flags | ONLY_AST)
        if self.missing is not None:
            from . import code_annotations

            code_annotations.delay(tree, source, self.missing)
        return tree

    def find(
        self, name: str, line: int, freevars: Tuple[str, ...], ordinal: int
    ) -> Optional[CodeType]:
        """Return the code object of the ``ordinal``-th function of that name there, or None."""
        found = [
            c
            for c in self.codes
            if c.co_name == name and c.co_firstlineno == line and c.co_freevars == freevars
        ]
        if not found:
            return None
        # Several lambdas in one line. Their order among the constants differs between versions, and
        # some merge equal ones; their order in the syntax does not change.
        if all(same_shape(found[0], each) for each in found[1:]):
            return found[0]
        marked = self._marked(name, line, ordinal)
        return next(
            (code for code in found if marked is not None and same_shape(code, marked)), None
        )

    def adapt(
        self, name: str, line: int, freevars: Tuple[str, ...], ordinal: int
    ) -> Optional[CodeType]:
        """Return the code of a function that has other free variables in this version.

        None if that is not due to annotations.

        Whether the names in an annotation that is never evaluated are variables of the function
        differs between versions.
        """
        key = (name, line, freevars, ordinal)
        if key not in self._adapted:
            from . import code_annotations

            tree = self._fresh()
            nodes = [
                node
                for node in _functions(tree)
                if getattr(node, "name", "<lambda>") == name and _head(node).lineno == line
            ]
            if ordinal >= len(nodes):
                return None
            late = "annotations" in self.features
            code_annotations.as_texts(tree, self._source(), every=late)
            code_annotations.refer_to(nodes[ordinal], freevars)
            flags = self._flags & ~flags_of(("annotations",)) if late else self._flags
            codes = list(walk(compile_quietly(tree, self.filename, flags)))
            found = [
                c
                for c in codes
                if c.co_name == name and c.co_firstlineno == line and c.co_freevars == freevars
            ]
            self._adapted[key] = found[0] if len(found) == 1 else None
        return self._adapted[key]  # type: ignore[no-any-return]

    def count(self, name: str, line: int) -> int:
        """Return how many functions of that name begin in that line."""
        if self._counts is None:
            counts: Dict[Tuple[str, int], int] = {}
            for node in _functions(self._parsed()):
                key = (getattr(node, "name", "<lambda>"), _head(node).lineno)
                counts[key] = counts.get(key, 0) + 1
            self._counts = counts
            if max(counts.values(), default=0) < 2:
                self._tree = None  # it will not be needed again, and is large
        return self._counts.get((name, line), 0)

    def _parsed(self) -> Any:
        tree = self._tree
        if tree is None:
            tree = self._tree = self._fresh()
        return tree

    def _marked(self, name: str, line: int, ordinal: int) -> Any:
        """Return the code that a function's syntax compiles to by itself.

        It is moved to lines of its own for that.
        """
        key = (name, line, ordinal)
        with _marking:
            if key not in self._marks:
                tree = self._parsed()
                nodes = [
                    node
                    for node in _functions(tree)
                    if getattr(node, "name", "<lambda>") == name and _head(node).lineno == line
                ]
                if ordinal >= len(nodes):
                    return None
                _shift(nodes[ordinal], self.last)
                try:
                    codes = walk(compile_quietly(tree, self.filename, self._flags))
                    self._marks[key] = next(
                        (code for code in codes if code.co_firstlineno == line + self.last), None
                    )
                finally:
                    _shift(nodes[ordinal], -self.last)
            return self._marks[key]


def _shift(node: Any, lines: int) -> None:
    """Move a node with all that is in it.

    In some versions instructions depend on what stands in one line.
    """
    import ast

    found: Any = ast.walk(node)
    for each in found:
        if hasattr(each, "lineno"):
            each.lineno += lines
            each.end_lineno += lines


def _head(node: Any) -> Any:
    """Return the node whose line is the first line of a function's code."""
    decorators = getattr(node, "decorator_list", None)
    return decorators[0] if decorators else node


def _functions(node: Any) -> Iterator[Any]:
    import ast

    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
        yield from _functions(child)


def walk(code: CodeType) -> Iterator[CodeType]:
    """Yield the code objects in the constants of one, and those in theirs."""
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield constant
            yield from walk(constant)


def same_shape(a: CodeType, b: CodeType) -> bool:
    """Return True if two code objects do the same, wherever they stand."""
    return (
        a.co_code == b.co_code
        and (a.co_names, a.co_varnames, a.co_freevars, a.co_cellvars)
        == (b.co_names, b.co_varnames, b.co_freevars, b.co_cellvars)
        and (a.co_argcount, a.co_posonlyargcount, a.co_kwonlyargcount)
        == (b.co_argcount, b.co_posonlyargcount, b.co_kwonlyargcount)
        and (a.co_name, a.co_flags, len(a.co_consts)) == (b.co_name, b.co_flags, len(b.co_consts))
        and all(map(_same_constant, a.co_consts, b.co_consts))
    )


def _same_constant(x: Any, y: Any) -> bool:
    if type(x) is not type(y):
        return False
    if isinstance(x, type(walk.__code__)):
        return same_shape(x, y)
    # 0.0 == -0.0, (1,) == (True,)
    return bool(x == y) and (isinstance(x, frozenset) or repr(x) == repr(y))


def flags_of(features: Sequence[str]) -> int:
    """Return the compiler flags of ``__future__`` features."""
    flags = 0
    if features:
        import __future__

        for feature in features:
            flags |= getattr(getattr(__future__, feature, None), "compiler_flag", 0)
    return flags


def compile_quietly(source: Any, filename: str, flags: int) -> Any:
    """Compile without warnings: the author of the source has seen them already."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, filename, "exec", flags, True)


def unit_of(
    filename: str,
    first: int,
    text: str,
    features: Tuple[str, ...],
    missing: Optional[Tuple[str, ...]] = None,
) -> Unit:
    """Return the compiled statement; compiled once per process. Raises SyntaxError."""
    key = (filename, first, text, features, missing)
    unit = _UNITS.get(key)
    if unit is None:
        unit = _UNITS.setdefault(key, Unit(filename, first, text, features, missing))
    return unit


# --- called by pickle streams


def rebuild_code(
    filename: str,
    first: int,
    text: str,
    features: Tuple[str, ...],
    name: str,
    line: int,
    freevars: Tuple[str, ...],
    ordinal: int,
    theirs: str,
    missing: Tuple[str, ...] = (),
) -> CodeType:
    """Return the code object of a function that another Python has sent as source.

    Args:
        filename: of the code.
        first: line of the statement.
        text: the top-level statement in which the function stands.
        features: ``__future__`` features in force.
        name: of the function.
        line: its first one.
        freevars: its free variables.
        ordinal: its place among the functions of that name in that line.
        theirs: version of the Python that sent it.
        missing: global names that only annotations have, and that do not exist there.

    Raises:
        PicklingError: this Python cannot compile the source.
    """
    # From Python 3.14 on annotations are evaluated late, or never: what they name need not exist
    # when the function is made. Before 3.10, one that is a union cannot be evaluated at all.
    newer = _minor(theirs) >= 14 if sys.version_info >= (3, 10) else _minor(theirs) >= 9
    late = sys.version_info < (3, 14) and newer and "annotations" not in features
    try:
        unit = unit_of(filename, first, text, features, missing if late else None)
    except (SyntaxError, ValueError) as error:
        raise refusal(
            name,
            theirs,
            "its source (%s, line %d) is no Python %s: %s"
            % (filename, getattr(error, "lineno", 0) or line, _version(), error),
            "Write it without that syntax, or use an environment whose Python is at least as new",
        ) from None
    code = unit.find(name, line, freevars, ordinal) or unit.adapt(name, line, freevars, ordinal)
    if code is None:
        raise refusal(
            name,
            theirs,
            "Python %s compiles its source (%s, line %d) to other "
            "functions" % (_version(), filename, line),
            "",
        )
    if ORIGINS.get(id(code)) is None:
        ORIGINS.update((id(each), unit) for each in [code, *walk(code), *unit.codes])
        _show_lines(unit)
    return code


def _minor(version: str) -> int:
    """Return the second number of a version of Python."""
    second = version.split(".")[1] if "." in version else ""
    return int(second) if second.isdigit() else 0


def refusal(name: str, theirs: str, reason: str, remedy: str) -> PicklingError:
    """Return the error for code that came from another Python and cannot be used."""
    return PicklingError(
        "%s came from Python %s and cannot run in Python %s: %s. %s"
        % (name, theirs, _version(), reason, (remedy + ". ") if remedy else "")
        + "Bytecode is never sent from one to the other. Or put the function into a module or "
        "file that the other Python can import"
    )


def _version() -> str:
    return sys.version.split()[0]


def _show_lines(unit: Unit) -> None:
    """Let tracebacks show the lines of a statement whose file does not exist here.

    For example a notebook's cell, or a temporary file.
    """
    import linecache
    import os

    if unit.filename in _COMMON or os.path.exists(unit.filename):
        return
    entry: Any = linecache.cache.get(unit.filename)
    lines: List[str] = list(entry[2]) if entry is not None and len(entry) == 4 else []
    text = unit.text.split("\n")
    lines.extend(["\n"] * (unit.last - len(lines)))
    lines[unit.first - 1 : unit.first - 1 + len(text)] = [line + "\n" for line in text]
    linecache.cache[unit.filename] = (sum(map(len, lines)), None, lines, unit.filename)


def stdlib_code(
    module: str,
    path: Tuple[str, ...],
    nested: Tuple[str, ...],
    freevars: Tuple[str, ...],
    theirs: str,
) -> CodeType:
    """Return the code of a function within the standard library, this Python's own.

    Args:
        module: its module.
        path: attributes that lead to a function of the module.
        nested: names of the functions within that one.
        freevars: its free variables, which have to be the same here.
        theirs: version of the Python that sent it.
    """
    import importlib

    found: Any = importlib.import_module(module)
    try:
        for name in path:
            found = vars(found)[name]
            found = getattr(found, "__func__", found)
        code: Any = found.__code__
        for name in nested:
            code = next(
                each
                for each in code.co_consts
                if isinstance(each, type(code)) and each.co_name == name
            )
        if code.co_freevars == freevars:
            return code  # type: ignore[no-any-return]
    except (KeyError, AttributeError, StopIteration):
        pass
    where = ".".join((module,) + path + nested)
    raise refusal(where, theirs, "this Python's standard library has no function like it", "")


def module_globals(module: str) -> Dict[str, Any]:
    """Return the globals of a module of the standard library."""
    import importlib

    return importlib.import_module(module).__dict__


def builtin_type(name: str) -> Any:
    """Return a type of the module ``types``, also one that has no name there yet."""
    import types

    early = {
        "NoneType": type(None),
        "EllipsisType": type(...),
        "NotImplementedType": type(NotImplemented),
    }
    found = getattr(types, name, None) or early.get(name)
    if found is None:
        raise PicklingError("types.%s does not exist in Python %s" % (name, _version()))
    return found


def make_union(args: Tuple[Any, ...]) -> Any:
    """Return ``X | Y``, or what means the same here."""
    import functools
    import operator
    import typing

    try:
        return functools.reduce(operator.or_, args)
    except TypeError:
        return typing.Union[args]


def make_alias(origin: Any, args: Tuple[Any, ...]) -> Any:
    """Return ``origin[args]`` (``list[int]``), or what means the same here."""
    import typing

    given: Any = args
    if getattr(origin, "__module__", "") == "collections.abc" and origin.__name__ == "Callable":
        given = (args[0] if len(args) == 2 and args[0] is ... else list(args[:-1]), args[-1])
    elif len(args) == 1:
        given = args[0]
    try:
        return origin[given]
    except TypeError:
        name = origin.__name__
        spelled = {"deque": "Deque", "defaultdict": "DefaultDict", "Set": "AbstractSet"}.get(
            name, name[:1].upper() + name[1:]
        )
        spelled = "FrozenSet" if name == "frozenset" else "Set" if origin is set else spelled
        generic = getattr(typing, spelled, None)
        return origin if generic is None else generic[given]


def rebuild_annotations(entries: Sequence[Tuple[str, Any, Optional[bytes]]]) -> Dict[str, Any]:
    """Return annotations; one that cannot be made here is its text.

    Args:
        entries: (name, value or text, pickled value or None).
    """
    return {
        name: value if packed is None else _annotation(value, packed)
        for name, value, packed in entries
    }


def _annotation(text: str, packed: bytes) -> Any:
    from . import calls

    try:
        return calls.loads_rich(packed)
    except Exception:  # noqa: BLE001
        # a class of a module that is not here, a special form that is not there yet: only a remark
        return text


def make_lru_cache(function: Any, maxsize: Optional[int], typed: bool) -> Any:
    """Return a function with a cache of its own, empty."""
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def make_cached_property(function: Any, attribute: Optional[str]) -> Any:
    """Return a ``functools.cached_property`` that knows its name."""
    import functools

    made = functools.cached_property(function)
    made.attrname = attribute
    return made


def make_singledispatch() -> Any:
    """Return a ``functools.singledispatch`` function that has nothing registered yet."""
    import functools

    def nothing(*_args: Any) -> None:
        raise TypeError("not registered yet")

    return functools.singledispatch(nothing)


def set_singledispatch(dispatcher: Any, state: Tuple[Any, ...]) -> None:
    """Register the implementations: (the original, [(class, function), ...])."""
    import functools

    original, registered = state
    for kind, function in registered:
        dispatcher.register(kind, function)
    functools.update_wrapper(dispatcher, original)


def make_singledispatchmethod(function: Any, dispatcher: Any) -> Any:
    """Return a ``functools.singledispatchmethod`` around an existing dispatching function."""
    import functools

    made = functools.singledispatchmethod(function)
    made.dispatcher = dispatcher
    return made


def make_newtype(name: str, supertype: Any, module: str) -> Any:
    """Return a ``typing.NewType``."""
    import typing

    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]
    made.__module__ = module
    return made


# --- what is refused


def check_name(module: str, name: str) -> None:
    """Refuse names by which a stream from a Python of another magic number could run bytecode."""
    if (
        module == "marshal"
        or (name in ("CodeType", "code") and module in ("types", "builtins"))
        or (name == "_builtin_type" and module.rpartition(".")[2] == "cloudpickle")
    ):
        raise PicklingError(
            "%s.%s: bytecode of another Python is never accepted, only source" % (module, name)
        )
