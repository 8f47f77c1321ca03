"""Calls in the form of other libraries: what is said of them, with the form that is right here.

``submit`` passes every argument on to the function; options are given before, by ``options``.
Elsewhere they stand beside the arguments, and a function of a file is two arguments. Owns nothing;
any thread.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Container
from typing import Any

from wetlands_executor import arguments
from wetlands_executor.serialize import references

#: What ``options`` takes, and other libraries take in ``submit``.
OPTIONS = frozenset(
    ("name", "start", "timeout", "retries", "retry_on", "priority", "cancel_grace", "context")
)
#: Keywords that ``check_options`` looks at: options, and how others name the arguments.
LOOKED_AT = OPTIONS | {"args", "kwargs"}


def check_options(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse an option, or arguments in a tuple, where the function has no such parameter.

    Raises:
        TypeError: the call could only fail; says how it is written.
        FileNotFoundError: ``fn`` names a file that does not exist.
    """
    if not callable(fn):
        if isinstance(fn, str):
            _check_options_of_target(fn, args, kwargs)
        return  # else the function is the worker's
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return  # a function of C that says nothing of its parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    known = {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}
    name = references.display_name(fn)
    _refuse_unknown(name, name, known, args, kwargs)


def _check_options_of_target(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what ``check_options`` refuses, for a function of a file, which is read, not run.

    What a module defines is known to the worker only: its environment may have another version.

    Raises:
        TypeError: the call could only fail; says how it is written.
        FileNotFoundError: there is no such file.
    """
    where, _, qualname = target.rpartition(":")
    if where and qualname and references.is_file(where):
        known = _keywords(references.definition_of_target(target)[3], qualname)
        if known is not None:
            _refuse_unknown(qualname, repr(target), known, args, kwargs)


def _keywords(source: bytes, qualname: str) -> set[str] | None:
    """Return the keywords that a function of a file takes; None if any, or if the text hides it.

    Args:
        source: what the file holds.
        qualname: of a function, or of a method of a class.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None  # of another Python's syntax
    *classes, name = qualname.split(".")
    body: list[ast.stmt] = tree.body
    for each in classes:
        body = next(
            (node.body for node in body if isinstance(node, ast.ClassDef) and node.name == each), []
        )
    found = next(
        (
            node.args
            for node in body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
        ),
        None,
    )
    if found is None or found.kwarg or _may_be_another(tree, {*classes, name}):
        return None
    return {each.arg for each in (*found.args, *found.kwonlyargs)}


def _may_be_another(tree: ast.Module, names: set[str]) -> bool:
    """Return True if one of the names is decorated, or may be bound more than once."""
    bound = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound += [node.name] * (2 if node.decorator_list else 1)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.append(node.id)
        elif isinstance(node, ast.alias):
            bound += names if node.name == "*" else [node.asname or node.name]
    return any(bound.count(name) != 1 for name in names)


def _refuse_unknown(
    name: str, first: str, known: set[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise TypeError if a keyword that ``check_options`` looks at is none of the function's.

    Args:
        name: of the function.
        first: the first argument of the call, as it is written.
        known: keywords that the function takes.
        args: the other arguments of ``submit``.
        kwargs: its keywords.
    """
    wrong = [key for key in kwargs if key in LOOKED_AT and key not in known]
    if wrong:
        options = {key: kwargs[key] for key in wrong if key in OPTIONS}
        rest = {key: value for key, value in kwargs.items() if key not in OPTIONS or key in known}
        given, rest = _spread(rest, known)
        said = "options are given before: " if options else "arguments stand one by one: "
        raise TypeError(
            f"{name}() has no parameter {', '.join(map(repr, wrong))}, and submit() passes every "
            f"keyword on to the function; {said}"
            f"{_form(options, 'submit', first, (*args, *given), rest)}"
        )


def _spread(
    kwargs: dict[str, Any], known: Container[str] = ()
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what ``args=`` and ``kwargs=`` hold, as arguments and keywords."""
    rest = dict(kwargs)
    given = () if "args" in known else rest.pop("args", ())
    named = {} if "kwargs" in known else rest.pop("kwargs", {})
    given = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    return given, {**rest, **(named if isinstance(named, dict) else {})}


def checked(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], definition: Any = None
) -> tuple[Any, str]:
    """Return what is called, a callable or the definition of a target, and its name.

    Args:
        fn: a callable or a target.
        args: the other arguments of ``submit``.
        kwargs: its keywords.
        definition: of the target, if that is known.

    Raises:
        TypeError, ValueError, FileNotFoundError: it is neither, or the call has the form of another
            library.
    """
    if kwargs and not LOOKED_AT.isdisjoint(kwargs):
        check_options(fn, args, kwargs)
    if callable(fn):
        return fn, references.display_name(fn)
    target = references.target_of(fn)
    if definition is None and ":" not in target:
        raise no_target(target, args, kwargs)
    return definition or references.definition_of_target(target), references.display_name(target)


def no_target(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ValueError:
    """Return what is raised for a text that names a file or a module, and no function.

    Args:
        target: the text.
        args: the other arguments of ``submit``.
        kwargs: its keywords.
    """
    options = {key: value for key, value in kwargs.items() if key in OPTIONS}
    rest = {key: value for key, value in kwargs.items() if key not in OPTIONS}
    said = f"{target!r} is not a target"
    if args and isinstance(args[0], str) and args[0].isidentifier():
        given, rest = _spread(rest)
        text = repr(f"{target}:{args[0]}")
        right = _form(options, "submit", text, (*args[1:], *given), rest)
        return ValueError(f"{said}: the function stands behind a colon, {right}")
    said += ': write "package.module:function" or "path/to/file.py:function"'
    if references.is_file(target):
        said += f"; to run it as a script, {_form(options, 'submit_script', repr(target), (), {})}"
    return ValueError(said)


def _form(
    options: dict[str, Any], method: str, first: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """Return a call as it is written here."""
    view = f".options{arguments.of_values((), options)}" if options else ""
    rest = arguments.of_values(args, kwargs)[1:-1]
    return f"executor{view}.{method}({first}{', ' if rest else ''}{rest})"
