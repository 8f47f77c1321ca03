"""Annotations in the syntax tree of a function.

When they are evaluated, and which free variables it has.

From Python 3.14 on, annotations are evaluated when they are asked for (PEP 649), so they may name
what is defined later, or only for type checkers. An older Python would raise NameError. Likewise
``int | None``, which raises TypeError before Python 3.10.

``def f(): x: T = 1`` in another function has the free variable ``T`` until Python 3.13 and none
from 3.14 on; with ``from __future__ import annotations`` so has ``def f(): def g(x: T): ...`` until
3.9. A function that travels has to have those of the Python that it comes from, for its cells.
Works on a tree that belongs to the caller; keeps no state.
"""

from __future__ import annotations

import ast
import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Tuple

#: Builtin classes that are generic since Python 3.9.
_GENERIC = ("dict", "frozenset", "list", "set", "tuple", "type")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def as_texts(tree: Any, source: str, every: bool) -> None:
    """Replace annotations by their text.

    Args:
        tree: of a statement; is changed.
        source: what it was parsed from.
        every: all of them, as ``from __future__ import annotations`` does; else those of local
            variables only, which no version evaluates.
    """
    _visit(tree, source, every, local=False)


def _visit(node: Any, source: str, every: bool, local: bool) -> None:
    for name in ("annotation", "returns"):
        found = getattr(node, name, None)
        if found is not None and (every or (local and isinstance(node, ast.AnnAssign))):
            setattr(node, name, _text(found, source))
    if isinstance(node, _FUNCTIONS):
        local = True
    elif isinstance(node, ast.ClassDef):
        local = False
    for child in ast.iter_child_nodes(node):
        _visit(child, source, every, local)


def refer_to(node: Any, names: Tuple[str, ...]) -> None:
    """Let a function refer to names, in a place that is never reached.

    Args:
        node: a function or lambda; is changed.
        names: variables of the functions around it.
    """
    for name in names:
        if name == "__class__":
            continue
        place = node.body if isinstance(node, ast.Lambda) else node.body[-1]
        variable = ast.copy_location(ast.Name(name, ast.Load()), place)
        if isinstance(node, ast.Lambda):
            always = ast.copy_location(ast.Constant(True, kind=None), place)
            node.body = ast.copy_location(ast.IfExp(always, node.body, variable), place)
        else:
            never = ast.copy_location(ast.Constant(False, kind=None), place)
            use = ast.copy_location(ast.Expr(variable), place)
            node.body.append(ast.copy_location(ast.If(never, [use], []), place))


# --- annotations that are evaluated late


class _Scope:
    """Names that a function or class binds, each with the first line behind which it is bound."""

    def __init__(self, node: Any) -> None:
        self.is_class = isinstance(node, ast.ClassDef)
        self.names: Dict[str, int] = {}
        if not self.is_class:
            arguments = node.args
            every = arguments.args + arguments.kwonlyargs + arguments.posonlyargs
            for each in every + [arguments.vararg, arguments.kwarg]:
                if each is not None:
                    self.names[each.arg] = 0
        if not isinstance(node, ast.Lambda):
            for child in node.body:
                self._collect(child, never=False)

    def _bind(self, name: str, line: int, never: bool) -> None:
        line = sys.maxsize if never else line
        self.names[name] = min(line, self.names.get(name, sys.maxsize))

    def _collect(self, node: Any, never: bool) -> None:
        if isinstance(node, _FUNCTIONS + (ast.ClassDef,)):
            self._bind(node.name, node.end_lineno or node.lineno, never)
            return
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                self._bind(alias.asname or alias.name.partition(".")[0], node.lineno, never)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._bind(node.id, node.lineno, never)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            self._bind(node.name, node.lineno, never)
        for part, child in _parts(node):
            checking = isinstance(node, ast.If) and part == "body" and _is_for_checkers(node.test)
            self._collect(child, never or checking)


def _parts(node: Any) -> Iterator[Tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield name, each


def _is_for_checkers(test: Any) -> bool:
    """Return True for ``TYPE_CHECKING`` and ``typing.TYPE_CHECKING``."""
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def delay(tree: Any, source: str, missing: Tuple[str, ...]) -> None:
    """Replace annotations by their text that name what is not bound yet, or are no types here.

    The others stay: programs look at them, and ``dataclasses`` for one understands values better.

    Args:
        tree: of a statement; is changed.
        source: what it was parsed from.
        missing: names that do not exist among the globals.
    """
    _delay(tree, source, frozenset(missing), [])


def _delay(node: Any, source: str, missing: Any, scopes: List[_Scope]) -> None:
    line = getattr(node, "lineno", 0)
    if isinstance(node, _FUNCTIONS):
        arguments = node.args
        every: List[Any] = arguments.args + arguments.kwonlyargs + arguments.posonlyargs
        every += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
        for each in every:
            if each.annotation is not None and _is_late(each.annotation, line, missing, scopes):
                each.annotation = _text(each.annotation, source)
        if node.returns is not None and _is_late(node.returns, line, missing, scopes):
            node.returns = _text(node.returns, source)
    elif isinstance(node, ast.AnnAssign) and (not scopes or scopes[-1].is_class):
        if _is_late(node.annotation, line, missing, scopes):
            node.annotation = _text(node.annotation, source)
    for child in ast.iter_child_nodes(node):
        inner = isinstance(child, _FUNCTIONS + (ast.ClassDef, ast.Lambda))
        _delay(child, source, missing, scopes + [_Scope(child)] if inner else scopes)


def _is_late(annotation: Any, line: int, missing: Any, scopes: List[_Scope]) -> bool:
    nodes = list(ast.walk(annotation))
    for node in nodes:
        if isinstance(node, ast.Name) and not _is_bound(node.id, line, missing, scopes):
            return True
    # ``int | None`` is no type before Python 3.10, ``list[int]`` none before 3.9. Of these names
    # dataclasses understand the values better than texts.
    if any(
        getattr(node, "id", getattr(node, "attr", "")) in ("ClassVar", "InitVar") for node in nodes
    ):
        return False
    return any(_is_young(node) for node in nodes)


def _is_young(node: Any) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and sys.version_info < (3, 10)
    if isinstance(node, ast.Subscript):
        return getattr(node.value, "id", "") in _GENERIC and sys.version_info < (3, 9)
    return False


def _is_bound(name: str, line: int, missing: Any, scopes: List[_Scope]) -> bool:
    for index, scope in enumerate(reversed(scopes)):
        if name in scope.names and (index == 0 or not scope.is_class):
            return scope.names[name] < line
    return name not in missing


def _text(node: Any, source: str) -> Any:
    text = ast.get_source_segment(source, node) or "..."
    return ast.copy_location(ast.Constant(text, kind=None), node)
