"""Code for another Python, the sending half.

A code object as the source of its statement, verified to be the code that runs.

1. Where the source is: in the statement that the code was received in, if it came from another
   Python itself; else what ``linecache`` knows of its file (files, notebook cells, prompts with a
   history), as it was read before and as it is now (``code_texts.py``).
2. That is compiled again. If the result has the very code object that runs, the source is correct.
   A statement may have been compiled alone, or with others than the file has
   (``code_variants.py``). pytest changes the code of test modules: then the module is rewritten
   once more, and compared.
3. The top-level statement around the code's first line is cut out; ``code_portable.py`` compiles it
   on the other side. Functions of the standard library are only named.

Entered by any thread that pickles; the tables are caches, changed by single operations.
"""

from __future__ import annotations

import sys
import weakref

from . import code_portable, code_texts, code_variants

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Dict, Iterator, List, Optional, Tuple


# never leaves the picklers: it becomes a PicklingError that names the function
class NoSource(Exception):  # noqa: N818
    """No source is known to be that of the code."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Piece:
    """Where the source of one code object is.

    Attributes:
        unit: the statement around it; None for a function of the standard library.
        plain: the code object as the statement alone gives it; that of a test module without
            pytest's changes.
        arguments: for ``code_portable.rebuild_code`` or ``code_portable.stdlib_code``, without the
            version.
    """

    __slots__ = ("arguments", "plain", "unit")

    def __init__(
        self, unit: Optional[code_portable.Unit], plain: CodeType, arguments: Tuple[Any, ...]
    ) -> None:
        self.unit = unit
        self.plain = plain
        self.arguments = arguments


# id of a code object -> (weak reference to it, its piece). Grows and shrinks by single operations.
_PIECES: Dict[int, Tuple[Any, Piece]] = {}
# (file name, text, features) -> the whole file, compiled; the newest few
_WHOLE: Dict[Tuple[Any, ...], code_portable.Unit] = {}
# the same -> lines of its top-level statements
_GROUPS: Dict[Tuple[Any, ...], List[Tuple[int, int]]] = {}
# (file name, text) -> code objects that pytest makes of a test module
_REWRITTEN: Dict[Tuple[str, str], List[CodeType]] = {}


def locate(code: CodeType, space: Optional[Dict[str, Any]] = None) -> Piece:
    """Return where the verified source of ``code`` is.

    Args:
        code: what runs.
        space: globals of its function, if known: a loader there may have the source.

    Raises:
        NoSource: nowhere.
    """
    known = _PIECES.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    piece = _received(code) or _of_stdlib(code, space) or _of_file(code, space)
    key = id(code)
    _PIECES[key] = (weakref.ref(code, lambda _: _PIECES.pop(key, None)), piece)
    return piece


def _received(code: CodeType) -> Optional[Piece]:
    unit = code_portable.ORIGINS.get(id(code))
    return _piece(unit, unit, code) if unit is not None else None


def _piece(whole: code_portable.Unit, unit: code_portable.Unit, plain: CodeType) -> Optional[Piece]:
    """Return the place of code in a statement; None if it is ambiguous.

    ``plain`` was found in the whole file, or in that statement.
    """
    code = plain if whole is unit else _counterpart(unit, plain, whole.codes)
    if code is None:
        return None
    name, line, freevars = code.co_name, code.co_firstlineno, code.co_freevars
    for ordinal in range(unit.count(name, line)):
        found = unit.find(name, line, freevars, ordinal) or unit.adapt(
            name, line, freevars, ordinal
        )
        if found is not None and (found is code or code_portable.same_shape(found, code)):
            return Piece(
                unit,
                found,
                (
                    unit.filename,
                    unit.first,
                    unit.text,
                    unit.features,
                    name,
                    line,
                    freevars,
                    ordinal,
                ),
            )
    return None


# --- files, cells, prompts


def _of_file(code: CodeType, space: Optional[Dict[str, Any]]) -> Piece:
    filename = code.co_filename
    features = _features(code)
    known = False
    for text in code_texts.known(code, space):
        known = True
        piece = _of_text(text, features, code, space)
        if piece is not None:
            return piece
    for text in code_texts.of_ipython(code):
        piece = _of_text(text, features, code, space)
        if piece is not None:
            return piece
    if not known:
        if filename.startswith("<"):
            raise NoSource(
                "it has no source (it was made by exec, eval, python -c or at a prompt that keeps "
                "none: %s)" % filename,
                "Write it into a file, a notebook cell or a module",
            )
        if getattr(sys, "frozen", False):
            raise NoSource(
                "this frozen program was made without its source file %s" % filename,
                'Collect the source of its module (PyInstaller: module_collection_mode={"module": '
                '"pyz+py"} in the spec'
                " file; that of the main script cannot be collected, so put the function into a "
                "module)",
            )
        raise NoSource(
            "its source file %s cannot be read" % filename,
            "Let it be where it was when the function was defined",
        )
    if filename.startswith("<") and filename.endswith(">"):
        raise NoSource(
            "the source that is known as %s is not that of this function (it was made by exec or "
            "eval)" % filename,
            "Write it into a file, a notebook cell or a module",
        )
    raise NoSource(
        "its source in %s, line %d, is not the code that runs: the file was edited after it was "
        "imported, or a tool has changed the code" % (filename, code.co_firstlineno),
        "Reload the module or start anew, without tools that change code",
    )


def _of_text(
    text: str, features: Tuple[str, ...], code: CodeType, space: Optional[Dict[str, Any]]
) -> Optional[Piece]:
    """Return where in a text the code stands; None if the text does not give this very code."""
    filename = code.co_filename
    try:
        unit = _unit_around(filename, text, features, code.co_firstlineno)
    except (SyntaxError, ValueError):
        return None
    if unit is None:
        return None
    try:
        whole = _whole(filename, text, features)
    except (SyntaxError, ValueError):  # ``from __future__`` behind another statement of a cell
        whole = None
    if whole is not None:
        plain = (
            code
            if code in whole.codes
            else _of_rewritten(whole, code, space) or _of_cache(whole, code)
        )
        if plain is not None:
            return _piece(whole, unit, plain)
    source = "\n" * (unit.first - 1) + unit.text
    try:
        for codes in code_variants.codes_of(source, filename, features, code):
            plain = _counterpart(unit, code, codes)
            if plain is not None:
                return _piece(unit, unit, plain)
    except (SyntaxError, ValueError):
        pass  # it stands in the place of the function, and is something else
    return None


def _whole(filename: str, text: str, features: Tuple[str, ...]) -> code_portable.Unit:
    """Return a whole file, compiled.

    Only this gives the code that runs: a statement alone does the same, but newer compilers look at
    the imports of the module, too.
    """
    key = (filename, text, features)
    found = _WHOLE.get(key)
    if found is None:
        while len(_WHOLE) > 32:
            _WHOLE.pop(next(iter(_WHOLE)), None)
        found = _WHOLE[key] = code_portable.Unit(filename, 1, text, features)
    return found


def _features(code: CodeType) -> Tuple[str, ...]:
    """Return the names of the ``__future__`` features that were on when the code was compiled."""
    import __future__

    optional = (
        name for name in __future__.all_feature_names if name not in ("nested_scopes", "generators")
    )
    return tuple(
        name for name in optional if code.co_flags & getattr(__future__, name).compiler_flag
    )


def _unit_around(
    filename: str, text: str, features: Tuple[str, ...], line: int
) -> Optional[code_portable.Unit]:
    """Return the top-level statement around a line.

    Raises SyntaxError, ValueError: the text is none of Python.
    """
    for first, last in _groups_of(filename, text, features):
        if first <= line <= last:
            return code_portable.unit_of(
                filename, first, "\n".join(text.split("\n")[first - 1 : last]), features
            )
    return None


def _groups_of(filename: str, text: str, features: Tuple[str, ...]) -> List[Tuple[int, int]]:
    """Return (first line, last line) of the top-level statements of a file.

    Those that share a line are one.
    """
    key = (filename, text, features)
    groups = _GROUPS.get(key)
    if groups is None:
        groups = []
        tree = code_portable.compile_quietly(
            text, filename, code_portable.flags_of(features) | code_portable.ONLY_AST
        )
        for node in tree.body:
            first = min(
                [node.lineno] + [each.lineno for each in getattr(node, "decorator_list", ())]
            )
            if groups and first <= groups[-1][1]:
                groups[-1] = (groups[-1][0], max(node.end_lineno, groups[-1][1]))
            else:
                groups.append((first, node.end_lineno))
        while len(_GROUPS) > 32:
            _GROUPS.pop(next(iter(_GROUPS)), None)
        _GROUPS[key] = groups
    return groups


def _of_rewritten(
    whole: code_portable.Unit, code: CodeType, space: Optional[Dict[str, Any]]
) -> Optional[CodeType]:
    """Return what code would be without pytest's changes to asserts; None if that is not sure.

    It is if rewriting the source gives that code once more.
    """
    rewrite = sys.modules.get("_pytest.assertion.rewrite")
    if rewrite is None:
        return None
    loader = (space or {}).get("__loader__")
    if loader is None:
        spaces = (
            vars(module)
            for module in list(sys.modules.values())
            if getattr(module, "__file__", None) == whole.filename
        )
        loader = next((each.get("__loader__") for each in spaces), None)
    if type(loader).__name__ != "AssertionRewritingHook":
        return None
    key = (whole.filename, whole.text)
    codes = _REWRITTEN.get(key)
    if codes is None:
        import ast

        tree = ast.parse(whole.text, whole.filename)
        rewrite.rewrite_asserts(
            tree, whole.text.encode(), whole.filename, getattr(loader, "config", None)
        )
        codes = list(code_portable.walk(code_portable.compile_quietly(tree, whole.filename, 0)))
        while len(_REWRITTEN) > 8:
            _REWRITTEN.pop(next(iter(_REWRITTEN)), None)
        _REWRITTEN[key] = codes
    return _counterpart(whole, code, codes)


def _counterpart(
    whole: code_portable.Unit, code: CodeType, codes: List[CodeType]
) -> Optional[CodeType]:
    """Return the code of ``whole`` that stands where ``code`` stands in ``codes``.

    None if it stands nowhere there.
    """
    key = (code.co_name, code.co_firstlineno, code.co_freevars)
    alike = [each for each in codes if (each.co_name, each.co_firstlineno, each.co_freevars) == key]
    index = next((index for index, each in enumerate(alike) if each == code), None)
    plain = [
        each for each in whole.codes if (each.co_name, each.co_firstlineno, each.co_freevars) == key
    ]
    return plain[index] if index is not None and len(plain) == len(alike) else None


def _of_cache(whole: code_portable.Unit, code: CodeType) -> Optional[CodeType]:
    """Return what this release makes of code that an earlier patch release compiled differently.

    The cached bytecode names its source. If the file is still that source, and the code that runs
    is in the cache, the source is correct.
    """
    import importlib.util
    import marshal
    import os

    try:
        with open(importlib.util.cache_from_source(whole.filename), "rb") as stream:
            head = stream.read(16)
            status = os.stat(whole.filename)
            times = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (
                status.st_size & 0xFFFFFFFF
            ).to_bytes(4, "little")
            if head[:8] != importlib.util.MAGIC_NUMBER + b"\0\0\0\0" or head[8:] != times:
                return None
            # this interpreter's own cache
            codes = list(code_portable.walk(marshal.loads(stream.read())))  # noqa: S302
    except (OSError, ValueError, EOFError, TypeError, NotImplementedError):
        return None
    return _counterpart(whole, code, codes)


# --- the standard library


def _of_stdlib(code: CodeType, space: Optional[Dict[str, Any]]) -> Optional[Piece]:
    """Return the name of a function within the standard library; None for other code.

    For example of a wrapper that ``contextlib.contextmanager`` made.
    """
    module = _stdlib_module(space)
    if module is None:
        return None
    for path, nested, found in _functions_of(sys.modules[module]):
        if found is code:
            return Piece(None, code, (module, path, nested, code.co_freevars))
    return None


def _stdlib_module(space: Optional[Dict[str, Any]]) -> Optional[str]:
    """Return the name of the module if these are the globals of one of the standard library."""
    name = (space or {}).get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or vars(module) is not space or not isinstance(name, str):
        return None
    names = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return name if name.partition(".")[0] in names else None
    import os

    file = getattr(module, "__file__", None) or ""
    return (
        name
        if file.startswith(os.path.dirname(os.__file__) + os.sep) and "site-packages" not in file
        else None
    )


def _functions_of(module: Any) -> Iterator[Tuple[Tuple[str, ...], Tuple[str, ...], CodeType]]:
    """Yield (attributes, names of the functions within, code) of all functions of a module."""
    kind = type(code_portable.walk.__code__)

    def inside(path: Tuple[str, ...], nested: Tuple[str, ...], code: CodeType) -> Iterator[Any]:
        yield path, nested, code
        for constant in code.co_consts:
            if isinstance(constant, kind):
                yield from inside(path, nested + (constant.co_name,), constant)

    for name, value in list(vars(module).items()):
        entries: List[Tuple[Tuple[str, ...], Any]] = [((name,), value)]
        if isinstance(value, type) and value.__module__ == module.__name__:
            entries = [((name, key), each) for key, each in list(vars(value).items())]
        for path, each in entries:
            code = getattr(getattr(each, "__func__", each), "__code__", None)
            if isinstance(code, kind):
                yield from inside(path, (), code)
